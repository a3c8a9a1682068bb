"""Leases: who works on a job or a chunk, so that two never do, and a dead one never keeps it.

A claim is a compare-and-set that raises the row's `epoch`; every later write of the holder carries
that epoch, so a zombie's match no row. The holder moves a heartbeat counter. An observer calls a
lease lost when the counter has not moved for the lease's length on the observer's own monotonic
clock: wall clocks may jump, and no two machines' clocks are compared. Taking it back is a
compare-and-set on epoch and counter, so one late beat of a live holder is enough to keep the lease.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, select, text, true, tuple_, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service import events
from service.tables import Chunk, ChunkState, Job, State, now
from workers.device import device_holders, needs_device

LEASE_S = 30.0
"""How long a heartbeat may stand still before its lease is lost."""
Key = tuple[str, int | None]
"""(job, chunk number), or (job, None) for the job itself."""


@dataclass(eq=False)
class Lease:
    """A claim that was won, good while its heart beats.

    `lost` is set for ever once another epoch took over. Between two beats that came too late
    `held` is false too, without being final: send and write nothing then, but wait.
    """

    job_id: str
    number: int | None
    epoch: int
    owner: str
    lease_s: float = LEASE_S
    clock: Callable[[], float] = time.monotonic
    lost: threading.Event = field(default_factory=threading.Event)
    renewed_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.renewed_at = self.clock()

    @property
    def key(self) -> Key:
        return (self.job_id, self.number)

    def remaining_s(self) -> float:
        """Seconds for which no observer can have taken it back; 0 once lost."""
        if self.lost.is_set():
            return 0.0
        return max(0.0, self.renewed_at + self.lease_s - self.clock())

    def held(self) -> bool:
        """Whether the holder may still act on it."""
        return self.remaining_s() > 0


def owner_name() -> str:
    """A name for this process that no other, earlier or elsewhere, has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def claim_job(
    session: Session, job_id: str, owner: str, *, slots: int = 1, lease_s: float = LEASE_S
) -> Lease | None:
    """Claim a queued job, or a running build that nobody holds; commits.

    None if it is finished, held by someone, or needs a device while all `slots` are taken: then
    `waiting_for` says who has them.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Two claims of different jobs must not count the device slots side by side.
        session.execute(text("SELECT pg_advisory_xact_lock(7237001)"))
    job = session.get(Job, job_id, populate_existing=True)
    if job is None or not _claimable(job):
        session.rollback()
        return None
    needs_it = job.state == State.QUEUED and needs_device(job)
    epoch, waiting = job.epoch, device_holders(session, job, slots) if needs_it else None
    if waiting is not None and waiting == job.waiting_for:
        session.rollback()
        return None
    values: dict[str, Any] = {"waiting_for": waiting}
    if waiting is None:
        values |= _claimed(owner) | {
            "state": State.RUNNING,
            "attempts": Job.attempts + 1,
            "started_at": func.coalesce(Job.started_at, now()),
        }
    unclaimed = Job.state == State.QUEUED if job.kind != "build" else Job.owner.is_(None)
    won = write(session, update(Job).where(Job.id == job_id, Job.epoch == epoch, unclaimed), values)
    if won and waiting is None and job.state == State.QUEUED:
        events.emit(session, job_id, events.STATE, {"state": State.RUNNING, "owner": owner})
    session.commit()
    return Lease(job_id, None, epoch + 1, owner, lease_s) if won and waiting is None else None


def claim_chunk(
    session: Session,
    job_id: str,
    owner: str,
    only: int | None = None,
    lease_s: float = LEASE_S,
    round_rows: int | None = None,
) -> Lease | None:
    """Claim the job's first pending chunk, or the one numbered `only`; commits. None if there is
    none.

    With `round_rows` rows come in rounds of so many: no chunk is claimed while one of an earlier
    round is not done.
    """
    this = Chunk.number == only if only is not None else true()
    begun = _rows_begun(session, job_id, round_rows)
    pending = Chunk.job_id == job_id, Chunk.state == ChunkState.PENDING, this, begun
    first = select(Chunk.number, Chunk.epoch).where(*pending).order_by(Chunk.number).limit(1)
    while (row := session.execute(first).first()) is not None:
        number, epoch = row
        claim = update(Chunk).where(*pending, Chunk.number == number, Chunk.epoch == epoch)
        won = write(session, claim, _claimed(owner) | {"state": ChunkState.LEASED})
        session.commit()
        if won:
            return Lease(job_id, number, epoch + 1, owner, lease_s)
    session.rollback()
    return None


def _rows_begun(session: Session, job_id: str, round_rows: int | None) -> ColumnElement[bool]:
    """Chunks of the first round that is not over."""
    if round_rows is None:
        return true()
    open_ones = (Chunk.job_id == job_id) & (Chunk.state != ChunkState.DONE)
    first = session.scalar(select(func.min(Chunk.first_row)).where(open_ones)) or 0
    return Chunk.first_row < (first // round_rows + 1) * round_rows


def release(session: Session, lease: Lease) -> bool:
    """Give a lease back unfinished: the next worker goes on. False if it was lost; commits.

    A build stays running without an owner (its chunks are what is worked on); others queue again.
    """
    if lease.number is not None:
        state: dict[str, Any] = {"state": ChunkState.PENDING}
        won = write_chunk_row(session, lease, state | {"owner": None})
    else:
        kind = select(Job.kind).where(Job.id == lease.job_id)
        queued = session.scalar(kind) != "build"
        won = write_job(session, lease, {"owner": None} | ({"state": "queued"} if queued else {}))
    session.commit()
    return won


def write_job(session: Session, lease: Lease, values: dict[str, Any]) -> bool:
    """Write to the leased job's row unless the lease was lost. Does not commit."""
    mine = Job.id == lease.job_id, Job.epoch == lease.epoch, Job.state == State.RUNNING
    return write(session, update(Job).where(*mine), values)


def write_chunk_row(session: Session, lease: Lease, values: dict[str, Any]) -> bool:
    """Write to the leased chunk's row unless the lease was lost. Does not commit."""
    mine = Chunk.job_id == lease.job_id, Chunk.number == lease.number, Chunk.epoch == lease.epoch
    return write(session, update(Chunk).where(*mine, Chunk.state == ChunkState.LEASED), values)


def write(session: Session, statement: Any, values: dict[str, Any]) -> bool:
    """Run an UPDATE; whether it matched one row. Does not commit."""
    return _rows(session, statement, values) == 1


class Heart:
    """Moves the heartbeats of any number of leases from a thread of its own."""

    def __init__(self, sessions: "sessionmaker[Session]", lease_s: float = LEASE_S):
        self.lease_s = lease_s
        self._sessions = sessions
        self._period_s = lease_s / 5
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def keep(self, lease: Lease) -> Lease:
        """Renew this lease from now on, until it is dropped or lost."""
        with self._lock:
            self._leases.add(lease)
        return lease

    def drop(self, lease: Lease) -> None:
        """Renew it no more: it was finished or given back."""
        with self._lock:
            self._leases.discard(lease)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            with self._lock:
                leases = list(self._leases)
            try:
                with self._sessions() as session:
                    beat(session, leases)
            except OperationalError:
                continue  # A locked or absent database: the lease runs out if it stays so.


def beat(session: Session, leases: Iterable[Lease]) -> None:
    """Renew the leases in one transaction and mark those that were lost; commits."""
    started = {lease: lease.clock() for lease in leases if not lease.lost.is_set()}
    alive = _beat_jobs(session, [lease for lease in started if lease.number is None])
    alive |= _beat_chunks(session, [lease for lease in started if lease.number is not None])
    session.commit()
    for lease, at in started.items():
        if (*lease.key, lease.epoch) in alive:
            lease.renewed_at = at
        else:
            lease.lost.set()


def _beat_jobs(session: Session, leases: list[Lease]) -> set[tuple[str, int | None, int]]:
    if not leases:
        return set()
    wanted = tuple_(Job.id, Job.epoch).in_([(lease.job_id, lease.epoch) for lease in leases])
    mine = wanted, Job.state == State.RUNNING
    count = _rows(session, update(Job).where(*mine), {"heartbeat": Job.heartbeat + 1})
    if count == len(leases):
        return {(*lease.key, lease.epoch) for lease in leases}
    rows = session.execute(select(Job.id, Job.epoch).where(*mine)).all()
    return {(job_id, None, epoch) for job_id, epoch in rows}


def _beat_chunks(session: Session, leases: list[Lease]) -> set[tuple[str, int | None, int]]:
    if not leases:
        return set()
    columns = (Chunk.job_id, Chunk.number, Chunk.epoch)
    wanted = tuple_(*columns).in_([(*lease.key, lease.epoch) for lease in leases])
    mine = wanted, Chunk.state == ChunkState.LEASED
    count = _rows(session, update(Chunk).where(*mine), {"heartbeat": Chunk.heartbeat + 1})
    if count == len(leases):
        return {(*lease.key, lease.epoch) for lease in leases}
    return {
        (job_id, number, epoch)
        for job_id, number, epoch in session.execute(select(*columns).where(*mine))
    }


def _claimable(job: Job) -> bool:
    if job.state == State.QUEUED:
        return not job.pause_requested
    return job.kind == "build" and job.state == State.RUNNING and job.owner is None


def _claimed(owner: str) -> dict[str, Any]:
    # The counter moves with the claim, so that an observer of the last holder starts anew.
    return {"owner": owner, "epoch": text("epoch + 1"), "heartbeat": text("heartbeat + 1")}


def _rows(session: Session, statement: Any, values: dict[str, Any]) -> int:
    done = session.execute(statement.values(**values).execution_options(synchronize_session=False))
    assert isinstance(done, CursorResult)
    return done.rowcount
