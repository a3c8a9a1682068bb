"""A build from its first doorbell to its dataset. Any number of workers may call `run` at once."""

import asyncio
import logging

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from prompts.seeds import SeedError
from prompts.verify import VerifyError
from service import chain, jobs, pausing
from service.asking import TeacherError
from service.durable import Write
from service.problems import Problem
from service.shared import StorageAwayError, StorageError
from service.site import Site
from service.tables import FINISHED, Chunk, ChunkState, Job, State
from workers import smoke
from workers.assemble import assemble
from workers.device import device_holders, needs_device
from workers.drain import drain
from workers.lease import Heart, Lease, claim_job, owner_name, release
from workers.ledger import FULL_DISK, LeaseLostError, LedgerDamagedError
from workers.prepare import prepare, prepared
from workers.pulse import set_waiting
from workers.sql import in_session
from workers.stops import SOFT
from workers.wake import wake
from workers.watch import Watch
from workers.work import Work, build_spec, load_work

log = logging.getLogger(__name__)

BUGS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)
"""What only a bug of ours raises: trying again would fail again, for ever."""


def run(site: Site, job_id: str, watch: Watch, write: Write | None = None) -> None:
    """Do of a build whatever can be done now, then return: prepare, drain, assemble.

    What others hold is left to them. `watch` outlives the call, so that their death is noticed.
    """
    owner = owner_name()
    wake(site, job_id)
    with Heart(site.sessions.writing, site.settings.lease_s) as heart:
        stopped = None
        if _prepare(site, job_id, owner, heart):
            stopped = _drain(site, job_id, owner, heart, watch, write)
        if stopped is None or stopped in SOFT:
            _assemble(site, job_id, owner, heart)
    if stopped in ("yield", "shutdown"):
        # Behind those that wait already: the queue is first in, first out.
        site.broker.ring("build", job_id)
    _advance_recipe(site, job_id)


def _prepare(site: Site, job_id: str, owner: str, heart: Heart) -> bool:
    """Whether the job's chunks are there, made now if nobody else is at it."""
    with site.sessions.reading() as session:
        job = session.get(Job, job_id)
        if job is None or job.state not in (State.QUEUED, State.RUNNING):
            return False
        if prepared(session, job_id):
            return True
    lease = _claim(site, job_id, owner, heart)
    if lease is None:
        return False
    try:
        prepare(site, lease, build_spec(job))
    except LeaseLostError:
        return False
    except SeedError as error:
        _finish(site, lease, "bad_input", str(error))
        return False
    except StorageAwayError as error:
        _try_again(site, lease, "storage_away", str(error))
        return False
    except StorageError as error:
        _finish(site, lease, "storage", str(error))
        return False
    except BUGS as error:
        log.exception("%s", job_id)
        _finish(site, lease, "crashed", f"{type(error).__name__}: {error}; see the worker's log")
        return False
    finally:
        heart.drop(lease)
    return in_session(site.sessions.writing, release, lease)


def _drain(
    site: Site, job_id: str, owner: str, heart: Heart, watch: Watch, write: Write | None
) -> str | None:
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
    if job.state != State.RUNNING or _waits_for_device(site, job):
        return "gone"
    try:
        return _ask(site, load_work(site, job, write), owner, heart, watch)
    except TeacherError as error:
        if error.pauses:
            _hold(site, job_id, error)
            return "paused"
        _fail(site, job_id, error.reason, str(error))
    except SeedError as error:
        _fail(site, job_id, "bad_input", str(error))
    except VerifyError as error:
        _fail(site, job_id, "bad_input", f"verify: {error}")
    except LedgerDamagedError as error:
        _fail(site, job_id, "ledger_damaged", str(error))
    except StorageAwayError as error:
        # The next tick brings somebody here again; what was paid for is there, or was waited for.
        in_session(site.sessions.writing, _wait_for, job_id, "storage_away", str(error))
        return "gone"
    except OSError as error:
        _fail(site, job_id, "storage", f"{error}. What was paid for before is kept.")
    except BUGS as error:
        log.exception("%s", job_id)
        _fail(site, job_id, "crashed", f"{type(error).__name__}: {error}; see the worker's log")
    return "failed"


def _waits_for_device(site: Site, job: Job) -> bool:
    """Whether a build that loads its teacher finds the device taken: it was paused meanwhile."""
    if not needs_device(job):
        return False
    with site.sessions.writing() as session:
        holders = device_holders(session, job, site.settings.device_slots)
        set_waiting(session, job.id, "waiting", holders)
        session.commit()
    return holders is not None


def _ask(site: Site, work: Work, owner: str, heart: Heart, watch: Watch) -> str | None:
    """Through the smoke gate, if there is one, then all the rest."""
    if smoke.verdict(site, work) == "waits":
        stopped = asyncio.run(drain(site, work, owner, heart, watch, only=smoke.GATE_CHUNK))
        if stopped is not None and stopped not in SOFT:
            return stopped
        if smoke.verdict(site, work) != "open":
            return "gone"  # Paused, or another worker is at it.
    return asyncio.run(drain(site, work, owner, heart, watch))


def _hold(site: Site, job_id: str, error: TeacherError) -> None:
    with site.sessions.writing.begin() as session:
        pausing.hold(session, job_id, error.reason, str(error))


def _assemble(site: Site, job_id: str, owner: str, heart: Heart) -> None:
    """Merge and publish, if every chunk is done and nobody else is at it."""
    if not in_session(site.sessions.reading, _all_done, job_id):
        return
    lease = _claim(site, job_id, owner, heart)
    if lease is None:
        return
    try:
        assemble(site, lease)
    except LeaseLostError:
        log.warning("%s: the assembly was taken over", job_id)
    except Problem as problem:
        _try_again(site, lease, "disk_full", problem.detail)
    except StorageAwayError as error:
        _try_again(site, lease, "storage_away", str(error))
    except OSError as error:
        if error.errno in FULL_DISK:
            _try_again(site, lease, "disk_full", str(error))
        else:
            _finish(site, lease, "storage", str(error))
    except BUGS as error:
        log.exception("%s", job_id)
        _finish(site, lease, "crashed", f"{type(error).__name__}: {error}; see the worker's log")
    finally:
        heart.drop(lease)


def _claim(site: Site, job_id: str, owner: str, heart: Heart) -> Lease | None:
    with site.sessions.writing() as session:
        slots, lease_s = site.settings.device_slots, site.settings.lease_s
        lease = claim_job(session, job_id, owner, slots=slots, lease_s=lease_s)
    return None if lease is None else heart.keep(lease)


def _all_done(session: Session, job_id: str) -> bool:
    unfinished = (Chunk.job_id == job_id) & (Chunk.state != ChunkState.DONE)
    return prepared(session, job_id) and not session.scalar(select(exists().where(unfinished)))


def _finish(site: Site, lease: Lease, reason: str, detail: str) -> None:
    with site.sessions.writing.begin() as session:
        jobs.finish(session, lease.job_id, lease.epoch, State.FAILED, reason=reason, detail=detail)


def _fail(site: Site, job_id: str, reason: str, detail: str) -> None:
    """End a job that this worker drains: it holds chunks of it, so nobody assembles it."""
    with site.sessions.writing.begin() as session:
        epoch = jobs.get(session, job_id).epoch
        jobs.finish(session, job_id, epoch, State.FAILED, reason=reason, detail=detail)


def _try_again(site: Site, lease: Lease, kind: str, detail: str) -> None:
    """The next tick brings somebody here again, and everything is still there."""
    log.warning("%s: %s", lease.job_id, detail)
    in_session(site.sessions.writing, _wait_for, lease.job_id, kind, detail)
    in_session(site.sessions.writing, release, lease)


def _wait_for(session: Session, job_id: str, kind: str, detail: str) -> None:
    set_waiting(session, job_id, kind, detail)
    session.commit()


def _advance_recipe(site: Site, job_id: str) -> None:
    with site.sessions.reading() as session:
        job = session.get(Job, job_id)
    if job is not None and job.parent_id is not None and job.state in FINISHED:
        chain.advance(site, job.parent_id)
