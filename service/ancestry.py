"""Jobs that were submitted one by one and still make a chain: who made what a job started from."""

from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.tables import Artifact, Job

MOST = 60
"""Ancestors that are looked at: a loop can't be, a very long row of compressions can."""


def behind(session: Session, job: Job) -> list[Job]:
    """The job, after the build and the training whose outputs it started from, as far as they were
    made here. A job that ended without an artifact stands alone."""
    made = _made(session, [job])
    train = job if job.kind == "train" else _first(session, made, "model", "train")
    build = _first(
        session, _made(session, [train]) if train is not None else made, "dataset", "build"
    )
    return [each for each in (build, train) if each is not None and each.id != job.id] + [job]


def dataset_of(session: Session, model_id: str) -> str | None:
    """The dataset that a model was made with, or else the nearest of its ancestors."""
    model = session.get(Artifact, model_id)
    if model is None:
        return None
    for each in [model, *_upwards(session, [model], "model")]:
        for found in _inputs(session, each, "dataset"):
            return found.id
    return None


def report_of(session: Session, job_ids: Sequence[str]) -> str | None:
    """The newest report that tells of one of these jobs."""
    told = Artifact.summary["job"].as_string().in_(job_ids)
    newest = select(Artifact.id).where(Artifact.kind == "report", told)
    return session.scalar(newest.order_by(Artifact.id.desc()).limit(1))


def _made(session: Session, jobs: Sequence[Job]) -> list[Artifact]:
    ids = [job.id for job in jobs]
    return list(session.scalars(select(Artifact).where(Artifact.job_id.in_(ids))))


def _first(session: Session, made: Sequence[Artifact], kind: str, job_kind: str) -> Job | None:
    """The nearest job of a kind that made an ancestor of a kind."""
    for artifact in _upwards(session, made, kind):
        job = session.get(Job, artifact.job_id) if artifact.job_id is not None else None
        if job is not None and job.kind == job_kind:
            return job
    return None


def _upwards(session: Session, made: Sequence[Artifact], kind: str) -> Iterator[Artifact]:
    """Ancestors of a kind, the nearest first, along artifacts of that kind."""
    waiting, seen = list(made), {artifact.id for artifact in made}
    while waiting and len(seen) < MOST:
        for found in _inputs(session, waiting.pop(0), kind):
            if found.id not in seen:
                seen.add(found.id)
                waiting.append(found)
                yield found


def _inputs(session: Session, artifact: Artifact, kind: str) -> list[Artifact]:
    found = [session.get(Artifact, id) for id in artifact.inputs]
    return [each for each in found if each is not None and each.kind == kind]
