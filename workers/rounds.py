"""Builds in rounds: the pool that a round is shown is what the rounds before it left.

It is read from the finished chunks' files, which are functions of the ledger, so every worker, and
every one after a restart, sees the same.
"""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from prompts.dataset.read import read_chunk
from prompts.instructions import TaskPool
from prompts.instructions.pool import make_pool
from prompts.record import Record, Seed
from prompts.seeds import scan_seeds
from prompts.spec import BuildSpec, InstructionBuild
from prompts.spec.methods import Magpie, SelfInstruct
from service.site import Site
from service.sources import source_lines
from service.tables import Chunk, ChunkState

InRounds = SelfInstruct | Magpie


class Rounds:
    """The pools of one job, read when they are first asked for; the last one is kept."""

    def __init__(self, site: Site, job_id: str, spec: BuildSpec, method: InRounds) -> None:
        self._site, self._job_id = site, job_id
        self._spec, self._method = spec, method
        self._kept: tuple[int, TaskPool] | None = None

    def __call__(self, turn: int) -> TaskPool:
        """The pool that round `turn`, from 0 on, is shown."""
        if self._kept is None or self._kept[0] != turn:
            records = self._records(turn * self._method.rows_per_round)
            self._kept = turn, make_pool(self._method.rouge_l, self.tasks(), records)
        return self._kept[1]

    def tasks(self) -> list[Seed]:
        """The tasks that the pool begins with; none for magpie."""
        if not self._spec.takes_seeds:
            return []
        return [seed for _, seed in scan_seeds(source_lines(self._site, self._spec))]

    def _records(self, below: int) -> Iterator[Record]:
        for path in self._chunks(below):
            self._site.store.shared.pull(path)
            yield from read_chunk(path)

    def _chunks(self, below: int) -> list[Path]:
        earlier = (Chunk.job_id == self._job_id) & (Chunk.first_row < below)
        query = select(Chunk).where(earlier).order_by(Chunk.number)
        with self._site.sessions.reading() as session:
            chunks = list(session.scalars(query))
        unfinished = [chunk.number for chunk in chunks if chunk.state != ChunkState.DONE]
        if unfinished:
            raise AssertionError(f"chunk {unfinished[0]} of an earlier round is not done")
        return [self._site.store.root / (chunk.path or "") for chunk in chunks]


def method_in_rounds(spec: BuildSpec) -> InRounds | None:
    """The method of a build that runs in rounds; None for all others."""
    if isinstance(spec, InstructionBuild) and isinstance(spec.method, SelfInstruct | Magpie):
        return spec.method
    return None


def round_rows(spec: BuildSpec) -> int | None:
    """Rows of a round; None for builds without rounds."""
    method = method_in_rounds(spec)
    return None if method is None else method.rows_per_round
