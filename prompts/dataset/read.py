"""Reads a dataset: only files that its manifest lists, one batch in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from prompts.dataset.chunk import read_batches
from prompts.dataset.files import DatasetError
from prompts.dataset.manifest import ShardFile, read_manifest
from prompts.dataset.signals import FOLDER
from prompts.record import End, Record, Rejected
from prompts.signal import SignalReader
from prompts.split import SplitName

Row = TypeVar("Row", Record, Rejected)

_BATCH_ROWS = 256


def read_rows(path: Path, split: SplitName) -> Iterator[Record]:
    """The accepted rows of one split, in input order. Raises DatasetError."""
    yield from _rows(path, split, Record)


def read_rejected(path: Path) -> Iterator[Rejected]:
    """Every row that was not accepted, in input order. Raises DatasetError."""
    yield from _rows(path, "rejected", Rejected)


def read_chunk(path: Path) -> Iterator[Record]:
    """The accepted rows of a chunk's file."""
    for table in read_batches(path, _BATCH_ROWS):
        for row in table.filter(pc.equal(table["end"], End.ACCEPTED.value)).to_pylist():
            yield Record.model_validate({name: row[name] for name in Record.model_fields})


def open_signal(path: Path) -> SignalReader:
    """The teacher signal of the dataset at `path`.

    Raises DatasetError if the dataset has none or a file of it isn't the manifest's, and
    SignalError for a damaged one.
    """
    summary = read_manifest(path).signal
    if summary is None:
        raise DatasetError(f"{path} has no teacher signal: build it with `signal`")
    for part in summary.files:
        _check_present(path / part.path, part.bytes)
    return SignalReader(path / FOLDER)


def _rows(path: Path, part: str, made: type[Row]) -> Iterator[Row]:
    for file in read_manifest(path).files:
        if file.part == part:
            yield from _shard(_present(path, file), made)


def _shard(file: Path, made: type[Row]) -> Iterator[Row]:
    try:
        for table in read_batches(file, _BATCH_ROWS):
            _check_columns(file, set(table.column_names), made)
            for row in table.to_pylist():
                yield made.model_validate(row)
    except DatasetError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's word, not the decoder's
        raise DatasetError(f"{file} is damaged, copy the dataset again: {error}") from error


def _check_columns(file: Path, held: set[str], made: type[Row]) -> None:
    """Rows that another tool wrote over are not damaged, and no copy mends them."""
    needed = {name for name, field in made.model_fields.items() if field.is_required()}
    if lacking := sorted(needed - held):
        raise DatasetError(
            f"{file} lacks the column {', '.join(lacking)}: its rows are not those of a build; "
            "build again, or import them with it"
        )


def _present(path: Path, file: ShardFile) -> Path:
    shard = path / file.path
    _check_present(shard, file.bytes)
    return shard


def _check_present(file: Path, wanted: int) -> None:
    size = file.stat().st_size if file.is_file() else None
    if size != wanted:
        found = "is missing" if size is None else f"has {size} bytes, not {wanted}"
        raise DatasetError(f"{file} {found}: the dataset is incomplete; copy it again")
