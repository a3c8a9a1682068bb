"""The start of a build: its seeds are checked, normalised and cut into chunks."""

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from prompts.earlier import Earlier
from prompts.instructions import slots
from prompts.intake import read_seeds
from prompts.record import Seed
from prompts.seeds import SeedError
from prompts.spec import BuildSpec
from service.durable import make_directory
from service.site import Site
from service.sources import source_lines
from service.tables import Artifact, Chunk, Job, Teacher
from workers.adopt import adopt, start_ledger
from workers.lease import Lease, write_job
from workers.ledger import LeaseLostError
from workers.rounds import method_in_rounds, round_rows
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
        job, teacher = session.get_one(Job, lease.job_id), session.get(Teacher, spec.teacher)
        if teacher is not None:
            start_ledger(site.store, job.id, teacher)
            adopt(session, site.store, job, teacher)
    target = seeds_path(site.store.root, lease.job_id)
    earlier = earlier_rows(site, spec)
    lines = source_lines(site, spec) if spec.takes_seeds else ()
    draft = target.with_name(f".{lease.epoch}.tmp")
    cuts = normalise(lines, draft, spec, earlier)
    site.store.shared.move(draft, target)
    goal = spec.target_rows
    if goal is not None and earlier is not None:
        goal = max(0, goal - earlier.accepted)
    with site.sessions.writing.begin() as session:
        if not write_job(session, lease, {"waiting_for": None, "goal": goal}):
            raise LeaseLostError(lease.job_id)
        if not prepared(session, lease.job_id):
            session.add_all(_row(lease.job_id, cut) for cut in cuts)


def earlier_rows(site: Site, spec: BuildSpec) -> Earlier | None:
    """What the version that an incremental build begins from has; None if it begins anew."""
    if not isinstance(spec.incremental, str):
        return None
    with site.sessions.reading() as session:
        before = session.get_one(Artifact, spec.incremental)
    return Earlier(site.store.path(before))


def normalise(
    lines: Iterable[bytes], target: Path, spec: BuildSpec, earlier: Earlier | None = None
) -> list[Cut]:
    """Copy the seeds that are asked for, one JSON object with an `id` a line, and cut them."""
    make_directory(target.parent)
    cuts: list[Cut] = []
    with open(target, "wb") as out:
        seeds: Iterator[Seed] = iter(())
        if spec.takes_seeds:
            seeds = (seed for _, seed in read_seeds(spec, lines))
        if earlier is not None:
            seeds = earlier.fresh(seeds)
        if (method := method_in_rounds(spec)) is not None:
            for _ in seeds:
                pass  # They are the pool's first tasks: what is wrong with one is said now.
            seeds = slots(method)
        smoke_rows = spec.smoke.rows if spec.smoke is not None else spec.chunk_rows
        asked = itertools.islice(seeds, spec.limit)
        batches = _batches(asked, smoke_rows, spec.chunk_rows, round_rows(spec))
        first_row = 0
        for number, rows in enumerate(batches):
            cuts.append(Cut(number, first_row, len(rows), out.tell()))
            first_row += len(rows)
            out.writelines(json.dumps(seed, ensure_ascii=False).encode() + b"\n" for seed in rows)
        out.flush()
        os.fsync(out.fileno())
    if not cuts:
        raise SeedError(None, f"no seed is new: {spec.incremental} has them all")
    return cuts


def _batches(
    seeds: Iterable[Seed], first: int, size: int, round_rows: int | None = None
) -> Iterator[list[Seed]]:
    """The rows of the smoke gate are a chunk of their own, and no chunk is of two rounds."""
    seeds = iter(seeds)
    place, wanted = 0, first
    while batch := list(itertools.islice(seeds, min(wanted, _left(place, round_rows)))):
        yield batch
        place, wanted = place + len(batch), size


def _left(place: int, round_rows: int | None) -> int:
    """Rows from this one to the end of its round."""
    return sys.maxsize if round_rows is None else round_rows - place % round_rows


def _row(job_id: str, cut: Cut) -> Chunk:
    return Chunk(
        job_id=job_id, number=cut.number, first_row=cut.first_row, rows=cut.rows, offset=cut.offset
    )
