"""Jobs: the one path by which every face starts, stops and looks at work.

`submit` and `cancel` open transactions of their own and ring afterwards. `finish` works inside a
worker's transaction and carries the epoch of its claim (workers/lease.py), so that a zombie's
matches no row.
"""

import hashlib
import json
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import events, preflight, quotas, tracing
from service.ids import make_id
from service.problems import Problem, not_found
from service.site import Site
from service.spec import JobSpec, job_spec
from service.tables import FINISHED, Chunk, Job, State, now


def submit(
    site: Site,
    spec: JobSpec,
    *,
    idempotency_key: str | None = None,
    parent_id: str | None = None,
    part: str | None = None,
    by: str | None = None,
) -> Job:
    """Queue a job. Everything that can be checked is checked before anything is spent.

    References in the stored spec are ids and absolute paths, so that any worker understands them.
    The same idempotency key with the same spec returns the job that it made before. `by` is the API
    key whose limits hold; parts of a recipe count with the recipe. Raises 422 for the same
    idempotency key with another spec, 404 and 422 problems for references and values that can't
    work, 429 beyond a limit.
    """
    digest = _digest(spec)
    earlier = _earlier(site, idempotency_key, digest)
    if earlier is not None:
        return earlier
    checked = preflight.check(site, spec)
    job = Job(
        id=make_id("job"),
        kind=spec.kind,
        name=_name(spec),
        spec=checked.model_dump(mode="json"),
        parent_id=parent_id,
        part=part,
        idempotency_key=idempotency_key,
        spec_sha256=digest,
        key_id=by,
        traceparent=_trace(site),
    )
    try:
        with site.sessions.writing.begin() as session:
            if by is not None and parent_id is None:
                quotas.check_submit(session, by, spec, now())
            session.add(job)
            session.flush()
            events.emit(session, job.id, events.STATE, {"state": State.QUEUED})
    except IntegrityError:
        # Another request with this key got in between the look and the insert.
        earlier = _earlier(site, idempotency_key, digest)
        if earlier is None:
            raise
        return earlier
    site.broker.ring(job.kind, job.id)
    return job


def spec_of(job: Job) -> JobSpec:
    """A job's spec, parsed."""
    return job_spec.validate_python(job.spec)


def submitted(site: Site, job_id: str) -> JobSpec:
    """What was submitted as a job. Raises a 404 problem."""
    with site.sessions.reading() as session:
        return spec_of(get(session, job_id))


def get(session: Session, job_id: str) -> Job:
    """A job by id. Raises a 404 problem."""
    job = session.get(Job, job_id)
    if job is None:
        raise not_found("job", job_id, [])
    return job


def children(session: Session, job_id: str) -> list[Job]:
    """The parts of a recipe, in the order they were submitted."""
    query = select(Job).where(Job.parent_id == job_id)
    return list(session.scalars(query.order_by(Job.created_at, Job.id)))


def listing(
    session: Session,
    *,
    state: State | None = None,
    kind: str | None = None,
    parent: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[Job]:
    """Jobs, newest first; `before` is the last id of the page before this one."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if parent is not None:
        query = query.where(Job.parent_id == parent)
    if before is not None:
        query = query.where(Job.id < before)
    return list(session.scalars(query))


def finish(
    session: Session,
    job_id: str,
    epoch: int,
    state: State,
    *,
    reason: str | None = None,
    detail: str | None = None,
    result: dict[str, Any] | None = None,
) -> bool:
    """End a job that the caller claimed at `epoch`. False if it is no longer the caller's, or has
    ended already: then nothing was written and the caller's transaction should be rolled back."""
    mine = (Job.id == job_id) & (Job.epoch == epoch) & Job.state.not_in(FINISHED)
    return _end(session, mine, job_id, state, reason, detail, result or {})


def cancel(site: Site, job_id: str) -> Job:
    """Ask a job and its parts to stop. A queued one ends at once; a running one is told, and ends
    when its worker has put things in order. Raises a 404 problem; an ended job is left as it is."""
    with site.sessions.writing.begin() as session:
        job = get(session, job_id)
        family = [*children(session, job_id), job]
        at_work = [
            (member.kind, member.id)
            for member in family
            if member.state in (State.RUNNING, State.PAUSED)
        ]
        for member in family:
            _cancel_one(session, member.id)
        session.expire_all()
        job = get(session, job_id)
    for kind, member_id in at_work:
        site.broker.ring(kind, member_id)
    if job.parent_id is not None:
        site.broker.ring("recipe", job.parent_id)
    return job


def _cancel_one(session: Session, job_id: str) -> None:
    unbegun = ~select(Chunk.job_id).where(Chunk.job_id == job_id).exists()
    waiting = (Job.state == State.QUEUED) | ((Job.state == State.PAUSED) & unbegun)
    queued = (Job.id == job_id) & waiting
    if _end(session, queued, job_id, State.CANCELLED, "cancelled", None, {}):
        return
    told = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_([State.RUNNING, State.PAUSED]),
            Job.cancel_requested.is_(False),
        )
        # A paused build runs once more: its worker publishes what was paid for.
        .values(cancel_requested=True, state=State.RUNNING, reason=None, detail=None)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if told is not None:
        events.emit(session, job_id, "cancel_requested", {})


def _end(
    session: Session,
    condition: Any,
    job_id: str,
    state: State,
    reason: str | None,
    detail: str | None,
    result: dict[str, Any],
) -> bool:
    ended = session.execute(
        update(Job)
        .where(condition)
        .values(
            state=state,
            reason=reason,
            detail=detail,
            result=result,
            waiting_for=None,
            pause_requested=False,
            finished_at=now(),
        )
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if ended is None:
        return False
    data = {"state": state, "reason": reason, "detail": detail, "result": result}
    events.emit(session, job_id, events.STATE, data)
    return True


def _earlier(site: Site, key: str | None, digest: str) -> Job | None:
    if key is None:
        return None
    with site.sessions.reading() as session:
        job = session.scalars(select(Job).where(Job.idempotency_key == key)).one_or_none()
    if job is not None and job.spec_sha256 != digest:
        raise Problem(
            422,
            "idempotency-key-reused",
            "Idempotency key used before",
            f"The key {key!r} made {job.id} from another spec; use a new key for a new job.",
        )
    return job


def _trace(site: Site) -> str | None:
    """Of the request; what no request asked for, a schedule's run say, begins one."""
    here = tracing.current() or (tracing.begun() if site.settings.tracing else None)
    return None if here is None else str(here)


def _digest(spec: JobSpec) -> str:
    canonical = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _name(spec: JobSpec) -> str:
    match spec.kind:
        case "build":
            return spec.build.name
        case "train":
            return spec.train.name
        case "recipe" | "serve" | "batch":
            return spec.name
        case "compress" | "report":
            return spec.kind
