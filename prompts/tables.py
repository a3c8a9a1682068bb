"""Seeds from other forms than JSON Lines: CSV, Parquet, `datasets`, a dataset of our own. Each
becomes lines of JSON, one row at a time, so that nothing is held in memory."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from prompts.dataset.chunk import read_batches
from prompts.dataset.read import read_rows
from prompts.plan import scored_seed
from prompts.record import Record
from prompts.seeds import SeedError
from prompts.split import SPLITS

LONGEST_FIELD_BYTES = 64 * 2**20

Lines = Iterator[bytes]


def jsonl_lines(path: Path) -> Lines:
    """A file's lines as they are; what is wrong with them `scan_seeds` says."""
    with path.open("rb") as lines:
        yield from lines


def csv_lines(path: Path) -> Lines:
    """Rows of a CSV file with a header. Raises SeedError for a row of another width and for what is
    no UTF-8."""
    csv.field_size_limit(LONGEST_FIELD_BYTES)
    with path.open("rb") as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        yield b"\n"  # The header: rows keep the numbers that an editor shows.
        try:
            for row in reader:
                if None in row or None in row.values():
                    width = len(reader.fieldnames or ())
                    raise SeedError(reader.line_num, f"doesn't have the header's {width} fields")
                yield _line(row)
        except UnicodeDecodeError as error:
            raise SeedError(None, f"not UTF-8 ({error.reason}); save the file as UTF-8") from None
        except csv.Error as error:
            raise SeedError(reader.line_num + 1, f"malformed CSV: {error}") from None


def parquet_lines(path: Path) -> Lines:
    """Rows of a Parquet file. Raises SeedError if it is none."""
    try:
        for table in read_batches(path):
            for row in table.to_pylist():
                yield _line(row)
    except (pa.ArrowInvalid, OSError) as error:
        raise SeedError(None, f"no whole Parquet file: {error}") from error


def saved_lines(path: Path) -> Lines:
    """Rows of a directory that `datasets.save_to_disk` wrote; of several splits the first, train
    if there is one. Raises SeedError."""
    from datasets import Dataset, load_from_disk  # Late: it takes a second.

    try:
        loaded = load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise SeedError(None, f"no directory of datasets.save_to_disk: {error}") from error
    if not isinstance(loaded, Dataset):
        loaded = loaded["train"] if "train" in loaded else next(iter(loaded.values()))
    for row in loaded:
        yield _line(row)


def hub_lines(name: str) -> Lines:
    """Rows of the train split of a dataset that the `datasets` library knows by name, streamed.
    Raises SeedError if it can't be had."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        for row in load_dataset(name, split="train", streaming=True):
            yield _line(row)
    # RuntimeError: it has a script of its own, which `datasets` runs no more.
    except (OSError, ValueError, LookupError, ImportError, RuntimeError, DatasetsError) as error:
        raise SeedError(None, f"dataset {name!r} can't be loaded: {error}") from error


def dataset_lines(path: Path) -> Lines:
    """Accepted rows of a dataset of our own: the seed's fields, then the row's `prompt` and
    `completion` (the text of the last turn), `answer` and `reasoning`, all under the row's id."""
    for split in SPLITS:
        for row in read_rows(path, split):
            yield _line(_as_seed(row))


def scored_lines(path: Path) -> Lines:
    """Accepted rows of a dataset of our own, each whole, for a rescore build."""
    for split in SPLITS:
        for row in read_rows(path, split):
            yield _line(scored_seed(row))


READERS: dict[str, Callable[[Path], Lines]] = {
    ".jsonl": jsonl_lines,
    ".json": jsonl_lines,
    ".ndjson": jsonl_lines,
    ".csv": csv_lines,
    ".parquet": parquet_lines,
}


def file_lines(path: Path, name: str) -> Lines:
    """The rows of a file by the ending of its name; an unknown one is taken for JSON Lines."""
    return READERS.get(Path(name).suffix.lower(), jsonl_lines)(path)


def renamed(lines: Iterable[bytes], columns: Mapping[str, str]) -> Lines:
    """Rows with fields added from others: new name -> dotted path of the old one. A line that is
    no JSON object passes as it is: who reads it says what is wrong. Raises SeedError for a path
    that leads nowhere."""
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not columns or not isinstance(row, dict):
            yield line
            continue
        added = {new: _at(row, old, number) for new, old in columns.items()}
        yield _line(row | added)


def _at(row: dict[str, Any], path: str, number: int) -> Any:
    here: Any = row
    for step in path.split("."):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif (
            isinstance(here, list)
            and re.fullmatch(r"-?[0-9]{1,9}", step)
            and -len(here) <= int(step) < len(here)
        ):
            here = here[int(step)]
        else:
            problem = f"columns: there is no {path!r}; the fields it has: {', '.join(row)}"
            raise SeedError(number, problem)
    return here


def _as_seed(row: Record) -> dict[str, Any]:
    kept = {
        "prompt": row.prompt[-1].content,
        "completion": row.completion[-1].content,
        "answer": row.answer,
        "reasoning": row.reasoning,
    }
    seed: dict[str, Any] = json.loads(row.seed)
    return (
        seed | {name: value for name, value in kept.items() if value is not None} | {"id": row.id}
    )


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"
