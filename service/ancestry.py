"""Who was made from what: an artifact's family, and the jobs behind one that was submitted by
itself."""

from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service.tables import Artifact, Job

MOST = 60
"""Ancestors that are looked at: a loop can't be, a very long row of compressions can."""
LOOKED_AT = 500
"""How many of the newest models and reports are asked whether they came from an artifact."""


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


class Relative(Frozen):
    """One in an artifact's family."""

    id: str
    """Of something that was not made here: the directory or hub name, as it was given."""
    kind: str
    """`outside` for what was not made here."""
    name: str
    version: int | None
    bytes: int | None
    job_id: str | None
    inputs: tuple[str, ...]


def family(session: Session, artifact_id: str) -> list[Relative]:
    """An artifact, all that it was made from (as far as 60 of them), and what was made from it, of
    the newest models and reports."""
    found: dict[str, Relative] = {}
    waiting = [artifact_id]
    while waiting and len(found) < MOST:
        next_id = waiting.pop(0)
        if next_id not in found:
            found[next_id] = _relative(next_id, session.get(Artifact, next_id))
            waiting += found[next_id].inputs
    newest = select(Artifact).where(Artifact.kind.in_(["model", "report"]))
    for artifact in session.scalars(newest.order_by(Artifact.id.desc()).limit(LOOKED_AT)):
        if artifact_id in artifact.inputs and len(found) < MOST:
            found[artifact.id] = _relative(artifact.id, artifact)
    return list(found.values())


def _relative(id: str, artifact: Artifact | None) -> Relative:
    if artifact is None:
        name = id.rstrip("/").rpartition("/")[2] or id
        nothing = {"version": None, "bytes": None, "job_id": None}
        return Relative(id=id, kind="outside", name=name, inputs=(), **nothing)
    return Relative(
        id=id,
        kind=artifact.kind,
        name=artifact.name,
        version=artifact.version,
        bytes=artifact.bytes,
        job_id=artifact.job_id,
        inputs=tuple(artifact.inputs),
    )


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
