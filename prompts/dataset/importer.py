"""Imports datasets made elsewhere into our form, so that trainers have one kind of input."""

import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from prompts.dataset.assemble import assemble
from prompts.dataset.chunk import write_chunk
from prompts.dataset.files import DatasetError
from prompts.dataset.foreign import Foreign, to_record
from prompts.dataset.manifest import MANIFEST, Manifest
from prompts.dataset.sources import jsonl_rows, parquet_rows, saved_rows
from prompts.record import Kind
from prompts.seen import Seen, digest16
from prompts.spec import Split

_CHUNK_ROWS = 10_000


def import_dataset(
    source: Path,
    target: Path,
    *,
    kind: Kind | str,
    name: str = "dataset",
    split: Split | None = None,
    deduplicate: bool = True,
) -> Manifest:
    """Makes a dataset at `target` of a JSONL or Parquet file or a `datasets` directory.

    Rows need `prompt` and `completion`, each a text or a list of messages (TRL's columns); `id`,
    `answer`, `gold`, `reasoning`, `teacher` and `finish_reason` are taken over, all other columns
    kept in `seed`. Splits named train, validation and test stand (a `datasets` directory's, or a
    `split` column); otherwise a hash of the prompt decides with the shares of `split`.
    Raises DatasetError, which names the row and the column; nothing is left behind then.
    """
    kind = _kind(kind)
    scratch = target.parent / f".{target.name}.import.{uuid4().hex}"
    try:
        records = (to_record(row, kind, split or Split()) for row in _numbered(source))
        chunks: list[Path] = []
        rows = 0
        while group := list(islice(records, _CHUNK_ROWS)):
            chunks.append(write_chunk(scratch / f"{len(chunks):06d}.parquet", group).path)
            rows += len(group)
        if not rows:
            raise DatasetError(f"{source} holds no rows")
        recipe = {"import": {"source": source.name, "kind": kind.value, "name": name}}
        return assemble(
            target, chunks, recipe=recipe, seeds=rows, name=name, deduplicate=deduplicate
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _kind(kind: Kind | str) -> Kind:
    try:
        return Kind(kind)
    except ValueError:
        known = ", ".join(Kind)
        raise DatasetError(f"unknown kind {kind!r}; a dataset is one of: {known}") from None


def _numbered(source: Path) -> Iterator[Foreign]:
    """Rows with unique ids."""
    seen = Seen()
    for number, row in enumerate(_rows(source), 1):
        given = row.values.get("id")
        identity = f"row-{number:06d}" if given in (None, "") else str(given)
        first = seen.first(digest16(identity), number)
        if first is not None:
            raise DatasetError(f"{row.place}, column 'id': {identity!r} was used by row {first}")
        yield Foreign(row.place, row.split, {**row.values, "id": identity})


def _rows(source: Path) -> Iterable[Foreign]:
    if source.is_dir():
        if (source / MANIFEST).exists():
            raise DatasetError(f"{source} is a dataset of this format already; use it as it is")
        return saved_rows(source)
    if not source.exists():
        raise DatasetError(f"{source} does not exist")
    readers: dict[str, Any] = {".jsonl": jsonl_rows, ".json": jsonl_rows, ".parquet": parquet_rows}
    if source.suffix not in readers:
        raise DatasetError(
            f"{source.name}: can import .jsonl and .parquet files and directories written by"
            " datasets.save_to_disk"
        )
    rows: Iterable[Foreign] = readers[source.suffix](source)
    return rows
