"""After a restore: whoever worked is gone, and what the backup could not hold is done again."""

from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service import events
from service.store import Store
from service.tables import (
    FINISHED,
    Artifact,
    Chunk,
    ChunkState,
    Grant,
    Job,
    Reply,
    State,
)

EPOCHS = 1000
"""So much further are the epochs of open work than the database knew: ledgers may have been written
to after it was copied, and each epoch has one writer only."""
NOT_DONE: dict[str, Any] = {
    "state": ChunkState.PENDING,
    "owner": None,
    "path": None,
    "sha256": None,
    "accepted": 0,
    "rejected": 0,
    "not_needed": 0,
}


class Counts(TypedDict):
    """Of `recover`."""

    jobs: int
    unfinished: int
    missing: tuple[str, ...]


def recover(session: Session, store: Store, at: datetime) -> Counts:
    """Make a restored database fit to go on, with the artifacts of `store`; `at` is when the
    backup was made. The caller commits."""
    session.execute(delete(Grant))
    session.execute(delete(Reply).where(Reply.status.is_(None)))
    unfinished = list(session.scalars(select(Job).where(Job.state.not_in(FINISHED))))
    for job in unfinished:
        _free(session, job)
        if job.kind == "build":
            _mend_build(session, store, job)
        events.emit(session, job.id, "restored", {"backup": at.isoformat()})
    artifacts = session.execute(select(Artifact.id, Artifact.kind).order_by(Artifact.id))
    missing = tuple(
        key for key, kind in artifacts if not store.shared.whole(store.root / kind / key)
    )
    jobs = session.scalar(select(func.count()).select_from(Job)) or 0
    return {"jobs": jobs, "unfinished": len(unfinished), "missing": missing}


def _free(session: Session, job: Job) -> None:
    job.owner, job.epoch = None, job.epoch + EPOCHS
    if job.state == State.RUNNING and job.kind not in ("build", "recipe"):
        job.state = State.QUEUED
    mine = update(Chunk).where(Chunk.job_id == job.id)
    session.execute(mine.values(epoch=Chunk.epoch + EPOCHS))
    leased = mine.where(Chunk.state == ChunkState.LEASED)
    session.execute(leased.values(state=ChunkState.PENDING, owner=None))


def _mend_build(session: Session, store: Store, job: Job) -> None:
    chunks = list(session.scalars(select(Chunk).where(Chunk.job_id == job.id)))
    # The normalised seeds lie where workers/work.py puts them.
    if chunks and "seeds.jsonl" not in store.shared.names(store.root / "build" / job.id):
        session.execute(delete(Chunk).where(Chunk.job_id == job.id))
        job.goal, job.progress = None, {}
        if job.state == State.RUNNING:
            job.state = State.QUEUED
        return
    paths = {chunk.number: store.root / (chunk.path or "") for chunk in chunks}
    there = {place: set(store.shared.names(place)) for place in {p.parent for p in paths.values()}}
    for chunk in chunks:
        path = paths[chunk.number]
        if chunk.state == ChunkState.DONE and path.name not in there[path.parent]:
            this = Chunk.job_id == job.id, Chunk.number == chunk.number
            session.execute(update(Chunk).where(*this).values(**NOT_DONE))
