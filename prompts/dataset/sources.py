"""Readers of other people's datasets: each yields rows with the place that they came from."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from prompts.dataset.chunk import read_batches
from prompts.dataset.files import DatasetError
from prompts.dataset.foreign import Foreign
from prompts.seeds import SeedError, scan_seeds


def jsonl_rows(source: Path) -> Iterator[Foreign]:
    """One JSON object a line."""
    try:
        with source.open("rb") as file:
            for line, row in scan_seeds(file):
                yield Foreign(f"{source.name} line {line}", None, row)
    except SeedError as error:
        raise DatasetError(f"{source.name}: {error}") from error


def parquet_rows(source: Path) -> Iterator[Foreign]:
    """Rows of one Parquet file, counted from 1."""
    number = 0
    try:
        for table in read_batches(source):
            for row in table.to_pylist():
                number += 1
                yield Foreign(f"{source.name} row {number}", None, row)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{source.name} is no Parquet file: {error}") from error


def saved_rows(source: Path) -> Iterator[Foreign]:
    """Rows of a directory that `datasets.save_to_disk` wrote: one dataset, or one per split."""
    # Here, because `datasets` takes a second to import, and most readers of this room don't need it
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(source))
    except (FileNotFoundError, ValueError) as error:
        problem = "holds neither a dataset of this format nor one of datasets.save_to_disk"
        raise DatasetError(f"{source} {problem}: {error}") from error
    parts = {None: loaded} if isinstance(loaded, Dataset) else dict(loaded)
    for split, dataset in parts.items():
        for number, row in enumerate(dataset, 1):
            yield Foreign(
                f"{source.name} {split or ''} row {number}".replace("  ", " "), split, row
            )
