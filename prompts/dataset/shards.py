"""Writes one part of a dataset as a few large Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prompts.dataset.chunk import COMPRESSION
from prompts.dataset.files import file_sha256, sync
from prompts.dataset.manifest import ShardFile
from prompts.split import SplitName

_GROUP_ROWS = 1000


class Shards:
    """Files of one part, numbered once it is known how many there are.

    Row groups are cut by row number alone, so the bytes don't depend on how rows came in chunks.
    """

    def __init__(
        self, root: Path, part: SplitName | str, schema: pa.Schema, rows: int, bytes_: int
    ) -> None:
        self.part = part
        self.rows = 0
        self._folder = root / ("rejected" if part == "rejected" else "data")
        self._folder.mkdir(exist_ok=True)
        self._schema, self._limit_rows, self._limit_bytes = schema, rows, bytes_
        self._waiting = schema.empty_table()
        self._writer: pq.ParquetWriter | None = None
        self._sizes: list[int] = []
        self._rows_here = self._bytes_here = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows of a table that has at least the part's columns."""
        self.rows += len(table)
        self._waiting = pa.concat_tables([self._waiting, table.select(self._schema.names)])
        while len(self._waiting) >= self._room():
            self._write_group(self._room())

    def finish(self, root: Path) -> list[ShardFile]:
        """Writes what waits, closes the last file, gives all their final names and syncs them.

        A part without rows is one file without rows: readers find its columns.
        """
        if len(self._waiting) or not self._sizes:
            self._write_group(len(self._waiting))
        self._close()
        return [self._rename(root, number) for number in range(len(self._sizes))]

    def abandon(self) -> None:
        """Closes the open file without caring for what is in it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _room(self) -> int:
        return min(_GROUP_ROWS, self._limit_rows - self._rows_here)

    def _write_group(self, rows: int) -> None:
        group = self._waiting.slice(0, rows).combine_chunks()
        self._waiting = self._waiting.slice(rows)
        if self._writer is None:
            path = self._folder / f"{self.part}-{len(self._sizes):05d}.part"
            self._writer = pq.ParquetWriter(path, self._schema, compression=COMPRESSION)
            self._sizes.append(0)
        if rows:  # `datasets` fails on a row group without rows, not on a file without groups
            self._writer.write_table(group, row_group_size=_GROUP_ROWS)
        self._sizes[-1] += rows
        self._rows_here += rows
        self._bytes_here += group.nbytes
        if self._rows_here >= self._limit_rows or self._bytes_here >= self._limit_bytes:
            self._close()

    def _close(self) -> None:
        self.abandon()
        self._rows_here = self._bytes_here = 0

    def _rename(self, root: Path, number: int) -> ShardFile:
        name = f"{self.part}-{number:05d}-of-{len(self._sizes):05d}.parquet"
        path = (self._folder / f"{self.part}-{number:05d}.part").rename(self._folder / name)
        sync(path)
        return ShardFile.model_validate(
            {
                "path": path.relative_to(root).as_posix(),
                "part": self.part,
                "rows": self._sizes[number],
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }
        )
