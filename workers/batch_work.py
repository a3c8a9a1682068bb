"""What a worker needs to know of a batch, read once."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from service import batches, jobs
from service.asking import Endpoint, find_endpoint
from service.batches import Ask
from service.site import Site
from service.spec import BatchJob
from service.tables import Artifact, Job, Teacher


@dataclass(frozen=True)
class Work:
    """What a batch needs, read once."""

    job: Job
    spec: BatchJob
    path: Path
    asks: list[Ask]
    endpoints: dict[str, Endpoint]


def load_work(site: Site, job_id: str) -> Work:
    """Check a batch's file and find its teachers. Raises `BatchInputError`, `TeacherError`."""
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
        spec = jobs.spec_of(job)
        assert isinstance(spec, BatchJob)
        file = session.get_one(Artifact, spec.input)
        teachers = {each.name: each for each in session.scalars(select(Teacher))}
    path = site.store.path(file)
    asks = batches.scan(path, teachers.keys())
    named = {ask.model for ask in asks}
    endpoints = {name: find_endpoint(teachers[name], site.settings) for name in named}
    return Work(job, spec, path, asks, endpoints)
