"""A drain's look at SQL, once a second: is the job wanted, how far is it, who else is at it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import distinct, func, select, update
from sqlalchemy.orm import Session

from service import events
from service.tables import Chunk, ChunkState, Job, State
from workers.lease import Lease, write_chunk_row

Counts = dict[Lease, dict[str, int]]
"""The three counters of each open chunk."""


@dataclass(frozen=True)
class Pulse:
    """What one look saw."""

    running: bool
    cancelled: bool
    drainers: int
    """Owners of leased chunks, this one included: they share `max_in_flight` evenly."""
    accepted: int
    """Accepted rows of all chunks, the given counters included."""
    others_wait: bool
    """Another build has nobody working on it."""


def look(
    session: Session,
    job_id: str,
    counts: Counts,
    owner: str,
    rates: dict[str, Any],
) -> Pulse:
    """Write the open chunks' `counts`, tell of progress if it moved, and look around.

    `rates` are this drain's own figures, added to the progress event. The caller commits.
    """
    for lease, count in counts.items():
        write_chunk_row(session, lease, count)
    job = session.get_one(Job, job_id, populate_existing=True)
    totals = _totals(session, job_id)
    if job.state == State.RUNNING and _speaks(session, job_id, owner):
        _tell(session, job, totals, rates)
    return Pulse(
        running=job.state == State.RUNNING,
        cancelled=job.cancel_requested,
        drainers=max(1, totals.drainers),
        accepted=totals.accepted,
        others_wait=_others_wait(session, job_id),
    )


def tell_progress(session: Session, job_id: str) -> None:
    """Bring a job's progress up to date at the end of a phase. The caller commits."""
    job = session.get_one(Job, job_id, populate_existing=True)
    _tell(session, job, _totals(session, job_id), {})


def set_waiting(session: Session, job_id: str, kind: str, waiting_for: str | None) -> None:
    """Say what a running job waits for, or that it no longer does. The caller commits."""
    changed = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == State.RUNNING)
        .where(Job.waiting_for.is_distinct_from(waiting_for))
        .values(waiting_for=waiting_for)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if changed is not None:
        events.emit(session, job_id, kind, {"detail": waiting_for})


def _totals(session: Session, job_id: str) -> Any:
    return session.execute(
        select(
            func.coalesce(func.sum(Chunk.rows), 0).label("rows"),
            func.coalesce(func.sum(Chunk.accepted), 0).label("accepted"),
            func.coalesce(func.sum(Chunk.rejected), 0).label("rejected"),
            func.coalesce(func.sum(Chunk.not_needed), 0).label("not_needed"),
            func.count(distinct(Chunk.owner)).label("drainers"),
        ).where(Chunk.job_id == job_id)
    ).one()


def _speaks(session: Session, job_id: str, owner: str) -> bool:
    """One of the drainers tells for all: the one with the first leased chunk."""
    leased = select(Chunk.owner).where(Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED)
    return session.scalar(leased.order_by(Chunk.number).limit(1)) == owner


def _tell(session: Session, job: Job, totals: Any, rates: dict[str, Any]) -> None:
    progress = {
        "done": totals.accepted + totals.rejected + totals.not_needed,
        "total": totals.rows,
        "unit": "rows",
        "accepted": totals.accepted,
        "rejected": totals.rejected,
        "not_needed": totals.not_needed,
    }
    if progress == job.progress:
        return
    session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == State.RUNNING)
        .values(progress=progress)
        .execution_options(synchronize_session=False)
    )
    events.emit(session, job.id, "progress", progress | rates)


def _others_wait(session: Session, job_id: str) -> bool:
    """Whether another build job is queued, or runs with chunks that nobody drains."""
    queued = select(Job.id).where(Job.kind == "build", Job.id != job_id)
    if session.scalar(queued.where(Job.state == State.QUEUED).limit(1)) is not None:
        return True
    chunks = select(Chunk.job_id).where(Chunk.job_id == Job.id)
    pending = chunks.where(Chunk.state == ChunkState.PENDING).exists()
    leased = chunks.where(Chunk.state == ChunkState.LEASED).exists()
    stranded = queued.where(Job.state == State.RUNNING, pending, ~leased)
    return session.scalar(stranded.limit(1)) is not None
