"""Chunks: the finished rows of one lease, as one Parquet file."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prompts.dataset.files import file_sha256, whole_file
from prompts.dataset.schema import CHUNK_SCHEMA, chunk_table
from prompts.record import End, Record, Rejected

COMPRESSION = "zstd"
_GROUP_ROWS = 1000


@dataclass(frozen=True)
class ChunkFile:
    """What SQL keeps of a finished chunk."""

    path: Path
    sha256: str
    rows: int
    accepted: int
    rejected: int
    not_needed: int


def write_chunk(path: Path, rows: Iterable[Record | Rejected]) -> ChunkFile:
    """Writes rows in the given order, as a whole file or not at all; equal rows give equal bytes.

    Raises OSError (a full disk, say) with nothing left behind.
    """
    ends: Counter[str] = Counter()
    with whole_file(path) as part:
        with pq.ParquetWriter(part, CHUNK_SCHEMA, compression=COMPRESSION) as writer:
            for group in _groups(rows):
                ends.update(_end(row) for row in group)
                writer.write_table(chunk_table(group))
        digest = file_sha256(part)
    return ChunkFile(
        path=path,
        sha256=digest,
        rows=ends.total(),
        accepted=ends[End.ACCEPTED],
        rejected=ends[End.REJECTED],
        not_needed=ends[End.NOT_NEEDED],
    )


def read_batches(path: Path, rows: int = _GROUP_ROWS) -> Iterator[pa.Table]:
    """The rows of any Parquet file of ours, a thousand at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def _groups(rows: Iterable[Record | Rejected]) -> Iterator[list[Record | Rejected]]:
    remaining = iter(rows)
    while group := list(islice(remaining, _GROUP_ROWS)):
        yield group


def _end(row: Record | Rejected) -> str:
    return End.ACCEPTED if isinstance(row, Record) else row.end
