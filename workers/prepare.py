"""The start of a build: its seeds are checked, normalised and cut into chunks."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from prompts.intake import read_seeds
from prompts.record import Seed
from prompts.spec import BuildSpec
from service.site import Site
from service.tables import Artifact, Chunk, Job, Teacher
from workers.adopt import adopt, start_ledger
from workers.durable import make_directory, publish_durably
from workers.lease import Lease, write_job
from workers.ledger import LeaseLostError
from workers.work import seeds_path


@dataclass(frozen=True)
class Cut:
    """Where a chunk lies in the normalised seeds file."""

    number: int
    first_row: int
    rows: int
    offset: int


def prepared(session: Session, job_id: str) -> bool:
    """Whether the job has its chunks: they come all together, in one commit."""
    return session.scalar(select(func.count()).where(Chunk.job_id == job_id)) != 0


def prepare(site: Site, lease: Lease, spec: BuildSpec) -> None:
    """Write the normalised seeds, then the chunk rows. Doing it again changes nothing.

    Raises `prompts.seeds.SeedError` for what can't be read and `LeaseLostError`.
    """
    with site.sessions.reading() as session:
        source = site.store.path(session.get_one(Artifact, spec.seeds))
        job, teacher = session.get_one(Job, lease.job_id), session.get(Teacher, spec.teacher)
        if teacher is not None:
            start_ledger(site.store.root, job.id, teacher)
            adopt(session, site.store.root, job, teacher)
    target = seeds_path(site.store.root, lease.job_id)
    cuts = normalise(source, target, spec, name=f".{lease.epoch}.tmp")
    with site.sessions.writing.begin() as session:
        if not write_job(session, lease, {"waiting_for": None, "goal": spec.target_rows}):
            raise LeaseLostError(lease.job_id)
        if not prepared(session, lease.job_id):
            session.add_all(_row(lease.job_id, cut) for cut in cuts)


def normalise(source: Path, target: Path, spec: BuildSpec, name: str) -> list[Cut]:
    """Copy the seeds that are asked for, one JSON object with an `id` a line, and cut them."""
    make_directory(target.parent)
    temporary = target.with_name(name)
    cuts: list[Cut] = []
    with open(source, "rb") as lines, open(temporary, "wb") as out:
        seeds = (seed for _, seed in read_seeds(spec, lines))
        smoke_rows = spec.smoke.rows if spec.smoke is not None else spec.chunk_rows
        batches = _batches(itertools.islice(seeds, spec.limit), smoke_rows, spec.chunk_rows)
        first_row = 0
        for number, rows in enumerate(batches):
            cuts.append(Cut(number, first_row, len(rows), out.tell()))
            first_row += len(rows)
            out.writelines(json.dumps(seed, ensure_ascii=False).encode() + b"\n" for seed in rows)
        out.flush()
        os.fsync(out.fileno())
    publish_durably(temporary, target)
    return cuts


def _batches(seeds: Iterable[Seed], first: int, size: int) -> Iterator[list[Seed]]:
    """The rows of the smoke gate are a chunk of their own."""
    seeds = iter(seeds)
    if batch := list(itertools.islice(seeds, first)):
        yield batch
    while batch := list(itertools.islice(seeds, size)):
        yield batch


def _row(job_id: str, cut: Cut) -> Chunk:
    return Chunk(
        job_id=job_id, number=cut.number, first_row=cut.first_row, rows=cut.rows, offset=cut.offset
    )
