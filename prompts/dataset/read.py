"""Reads a dataset: only files that its manifest lists, one batch in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompts.dataset.chunk import read_batches
from prompts.dataset.files import DatasetError
from prompts.dataset.manifest import ShardFile, read_manifest
from prompts.record import Record, Rejected
from prompts.split import SplitName

_BATCH_ROWS = 256


def read_rows(path: Path, split: SplitName) -> Iterator[Record]:
    """The accepted rows of one split, in input order. Raises DatasetError."""
    for row in _rows(path, split):
        yield Record.model_validate(row)


def read_rejected(path: Path) -> Iterator[Rejected]:
    """Every row that was not accepted, in input order. Raises DatasetError."""
    for row in _rows(path, "rejected"):
        yield Rejected.model_validate(row)


def _rows(path: Path, part: str) -> Iterator[dict[str, Any]]:
    for file in read_manifest(path).files:
        if file.part == part:
            for table in read_batches(_present(path, file), _BATCH_ROWS):
                yield from table.to_pylist()


def _present(path: Path, file: ShardFile) -> Path:
    shard = path / file.path
    size = shard.stat().st_size if shard.is_file() else None
    if size != file.bytes:
        found = "is missing" if size is None else f"has {size} bytes, not {file.bytes}"
        raise DatasetError(f"{shard} {found}: the dataset is incomplete; copy it again")
    return shard
