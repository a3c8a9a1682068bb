"""One leased chunk: from its seeds and ledger in, to its finished file out."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from prompts.dataset import write_chunk
from prompts.record import Call, Record, Rejected, Seed
from service.tables import Chunk, ChunkState
from workers.lease import Lease, write_chunk_row
from workers.ledger import Entry, LedgerWriter, folder_of, read_entries
from workers.work import Work, build_folder, read_seeds


@dataclass(eq=False)
class OpenChunk:
    """A chunk under way. Outcomes are kept by place, so that the file is in input order."""

    lease: Lease
    seeds: list[Seed]
    entries: dict[str, list[Entry]]
    """Row id to its paid calls, those of earlier epochs included."""
    writer: LedgerWriter
    outcomes: dict[int, Record | Rejected] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: {"accepted": 0, "rejected": 0, "not_needed": 0}
    )
    """How rows ended so far: the chunk row's three counters."""
    waiting: dict[asyncio.Task[None], int] = field(default_factory=dict)
    """Rows that wait for the teacher, by place."""

    @property
    def complete(self) -> bool:
        """Whether every row has ended."""
        return len(self.outcomes) == len(self.seeds)

    def end(self, place: int, outcome: Record | Rejected) -> None:
        """The row at `place` has ended so. Each ends once."""
        assert place not in self.outcomes
        self.outcomes[place] = outcome
        self.counts["accepted" if isinstance(outcome, Record) else outcome.end] += 1

    def calls(self, seed: Seed) -> list[Call]:
        """What was paid for a row so far."""
        return [entry.call for entry in self.entries.get(seed["id"], ())]

    def spent(self) -> dict[str, Any]:
        """What the ledger holds, in figures."""
        entries = list(self._all_entries())
        return {
            "requests": len(entries),
            "prompt_tokens": sum(entry.call.prompt_tokens for entry in entries),
            "completion_tokens": sum(entry.call.completion_tokens for entry in entries),
            "teacher_seconds": round(sum(entry.seconds for entry in entries), 3),
        }

    def _all_entries(self) -> Iterator[Entry]:
        for row in self.entries.values():
            yield from row


def open_chunk(
    sessions: "sessionmaker[Session]",
    work: Work,
    lease: Lease,
    disk_full: Callable[[str], None],
) -> OpenChunk:
    """Read a leased chunk's seeds and what was paid for under earlier epochs. Blocks."""
    assert lease.number is not None
    with sessions() as session:
        row = session.get_one(Chunk, (lease.job_id, lease.number))
    return OpenChunk(
        lease=lease,
        seeds=read_seeds(work.seeds, row.offset, row.rows),
        entries=read_entries(folder_of(work.root, lease.job_id, lease.number), below=lease.epoch),
        writer=LedgerWriter(work.root, lease, work.write, disk_full),
    )


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
    done = {
        "state": ChunkState.DONE,
        "owner": None,
        "path": path.relative_to(work.root).as_posix(),
        "sha256": written.sha256,
    }
    with sessions.begin() as session:
        return write_chunk_row(session, lease, done | chunk.counts | chunk.spent())
