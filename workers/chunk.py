"""One leased chunk: from its seeds and ledger in, to its finished file out."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from prompts.dataset import write_chunk
from prompts.record import Call, Record, Rejected, Seed
from service.tables import Chunk, ChunkState
from workers.lease import Lease, write_chunk_row
from workers.ledger import Entry, LedgerWriter, folder_of, read_entries
from workers.signals import write_chunk_signal
from workers.work import Work, build_folder, read_seeds

SPENT = ("requests", "prompt_tokens", "completion_tokens", "teacher_seconds", "price")


@dataclass(eq=False)
class OpenChunk:
    """A chunk under way. Outcomes are kept by place, so that the file is in input order."""

    lease: Lease
    seeds: list[Seed]
    entries: dict[str, list[Entry]]
    """Row id to its paid calls, those of earlier epochs included."""
    writer: LedgerWriter
    work: Work
    accepted_before: int = 0
    """Accepted rows of the chunks before this one, as SQL last said."""
    outcomes: dict[int, Record | Rejected] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: {"accepted": 0, "rejected": 0, "not_needed": 0}
    )
    """How rows ended so far: the chunk row's three counters."""
    waiting: dict[asyncio.Task[None], int] = field(default_factory=dict)
    """Rows that wait for the teacher, by place."""
    _spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SPENT, 0))
    _accepted: list[int] = field(default_factory=list)
    """Places of the accepted rows, in order."""

    def __post_init__(self) -> None:
        for row in self.entries.values():
            for entry in row:
                self._count(entry)

    @property
    def complete(self) -> bool:
        """Whether every row has ended."""
        return len(self.outcomes) == len(self.seeds)

    def end(self, place: int, outcome: Record | Rejected) -> None:
        """The row at `place` has ended so. Each ends once."""
        assert place not in self.outcomes
        self.outcomes[place] = outcome
        if isinstance(outcome, Record):
            insort(self._accepted, place)
        self.counts["accepted" if isinstance(outcome, Record) else outcome.end] += 1

    def wanted(self, place: int, goal: int | None) -> bool:
        """Whether the row at `place` may be among the first `goal` accepted ones."""
        return goal is None or self.accepted_before + bisect_left(self._accepted, place) < goal

    def calls(self, seed: Seed) -> list[Call]:
        """What was paid for a row so far."""
        return [entry.call for entry in self.entries.get(seed["id"], ())]

    async def append(self, entry: Entry) -> None:
        """Keep an answer; returns once it is durable. Raises `LeaseLostError` or OSError."""
        await self.writer.append(entry)
        self.entries.setdefault(entry.call.row, []).append(entry)
        self._count(entry)

    def cost(self, entry: Entry) -> dict[str, float]:
        """What one answer cost, by the names of the chunk row's columns."""
        if entry.cached:
            return {}
        call = entry.call
        return {
            "requests": 1,
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.completion_tokens,
            "teacher_seconds": entry.seconds,
            "price": self.work.price(call),
        }

    def spent(self) -> dict[str, Any]:
        """What the ledger holds, in figures: the chunk row's columns."""
        return {name: self._spent[name] for name in SPENT}

    def _count(self, entry: Entry) -> None:
        for name, amount in self.cost(entry).items():
            self._spent[name] += amount


def open_chunk(
    sessions: "sessionmaker[Session]",
    work: Work,
    lease: Lease,
    waits: Callable[[OSError], None],
) -> OpenChunk:
    """Read a leased chunk's seeds and what was paid for under earlier epochs. Blocks."""
    assert lease.number is not None
    with sessions() as session:
        row = session.get_one(Chunk, (lease.job_id, lease.number))
        before = accepted_before(session, lease.job_id, lease.number)
    folder = folder_of(work.root, lease.job_id, lease.number)
    work.shared.pull(folder)
    return OpenChunk(
        lease=lease,
        seeds=read_seeds(work.seeds, row.offset, row.rows),
        entries=read_entries(folder, below=lease.epoch),
        writer=LedgerWriter(work.root, lease, work.write, waits),
        work=work,
        accepted_before=before,
    )


def accepted_before(session: Session, job_id: str, number: int) -> int:
    """Accepted rows of all chunks before this one, so far."""
    earlier = (Chunk.job_id == job_id) & (Chunk.number < number)
    return session.scalar(select(func.coalesce(func.sum(Chunk.accepted), 0)).where(earlier)) or 0


def close_chunk(sessions: "sessionmaker[Session]", work: Work, chunk: OpenChunk) -> bool:
    """Write a complete chunk's file, then commit it in SQL. False if the lease was lost. Blocks.

    The file's name holds the epoch: a zombie can't overwrite what its successor wrote.
    """
    lease = chunk.lease
    path = (
        build_folder(work.root, work.job_id)
        / "chunks"
        / f"{lease.number:06d}-{lease.epoch:06d}.parquet"
    )
    rows = [chunk.outcomes[place] for place in range(len(chunk.seeds))]
    written = write_chunk(path, rows)
    calls = {seed["id"]: chunk.calls(seed) for seed in chunk.seeds}
    for made in (path, *write_chunk_signal(path, work.signal, rows, calls)):
        work.shared.push(made)
    done = {
        "state": ChunkState.DONE,
        "owner": None,
        "path": path.relative_to(work.root).as_posix(),
        "sha256": written.sha256,
    }
    with sessions.begin() as session:
        return write_chunk_row(session, lease, done | chunk.counts | chunk.spent())
