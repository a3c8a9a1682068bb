"""A drain's look at SQL, once a second: is the job wanted, how far is it, who else is at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service import events
from service.tables import Chunk, ChunkState, Job, State, now
from workers.chunk import accepted_before
from workers.lease import Lease, write_chunk_row

Counts = dict[Lease, dict[str, Any]]
"""The counters of each open chunk: how rows ended, what was spent."""
SPENT = ("requests", "prompt_tokens", "completion_tokens", "price")


@dataclass(frozen=True)
class Pulse:
    """What one look saw."""

    running: bool
    paused: bool
    cancelled: bool
    drainers: int
    """Owners of leased chunks, this one included: they share `max_in_flight` evenly."""
    place: int
    """This one's among them, counted from 0."""
    goal: int | None
    """How many rows to accept before the asking ends."""
    before: dict[int, int]
    """Number of each open chunk -> accepted rows of the chunks before it."""
    spent: dict[str, float]
    """By all drains, by the names of a budget's limits; the given counters included."""
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
        _tell(session, job, totals._mapping, rates)
    owners = _owners(session, job_id, owner)
    numbers = [lease.number for lease in counts if lease.number is not None]
    return Pulse(
        running=job.state == State.RUNNING,
        paused=job.state == State.PAUSED,
        cancelled=job.cancel_requested,
        drainers=len(owners),
        place=owners.index(owner),
        goal=job.goal,
        before={number: accepted_before(session, job_id, number) for number in numbers},
        spent=_spent(job, totals),
        others_wait=others_wait(session, job_id),
    )


def _owners(session: Session, job_id: str, owner: str) -> list[str]:
    leased = select(Chunk.owner).where(Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED)
    return sorted({name for name in session.scalars(leased.distinct()) if name} | {owner})


def _spent(job: Job, totals: Any) -> dict[str, float]:
    spent = {name: float(totals._mapping[name]) for name in SPENT}
    spent["tokens"] = spent["prompt_tokens"] + spent["completion_tokens"]
    began = job.started_at or now()
    began = began if began.tzinfo else began.replace(tzinfo=UTC)
    spent["wall_s"] = max(0.0, (now() - began).total_seconds() - job.paused_s)
    return spent


def tell_progress(session: Session, job_id: str, counts: Mapping[str, int]) -> None:
    """How a job's rows ended in the end: accepted, rejected, not_needed. The caller commits."""
    job = session.get_one(Job, job_id, populate_existing=True)
    _tell(session, job, counts, {})


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
            *(func.coalesce(func.sum(Chunk.__table__.c[name]), 0).label(name) for name in SPENT),
        ).where(Chunk.job_id == job_id)
    ).one()


def _speaks(session: Session, job_id: str, owner: str) -> bool:
    """One of the drainers tells for all: the one with the first leased chunk."""
    leased = select(Chunk.owner).where(Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED)
    return session.scalar(leased.order_by(Chunk.number).limit(1)) == owner


def _tell(session: Session, job: Job, totals: Mapping[str, int], rates: dict[str, Any]) -> None:
    ends = {name: totals[name] for name in ("accepted", "rejected", "not_needed")}
    done = sum(ends.values())
    progress = {"done": done, "total": totals.get("rows", done), "unit": "rows"} | ends
    if progress == job.progress:
        return
    session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == State.RUNNING)
        .values(progress=progress)
        .execution_options(synchronize_session=False)
    )
    events.emit(session, job.id, "progress", progress | rates)


def others_wait(session: Session, job_id: str) -> bool:
    """Whether another build or batch is queued, or a build runs with chunks that nobody drains."""
    queued = select(Job.id).where(Job.kind.in_(("build", "batch")), Job.id != job_id)
    if session.scalar(queued.where(Job.state == State.QUEUED).limit(1)) is not None:
        return True
    chunks = select(Chunk.job_id).where(Chunk.job_id == Job.id)
    pending = chunks.where(Chunk.state == ChunkState.PENDING).exists()
    leased = chunks.where(Chunk.state == ChunkState.LEASED).exists()
    stranded = queued.where(Job.state == State.RUNNING, pending, ~leased)
    return session.scalar(stranded.limit(1)) is not None
