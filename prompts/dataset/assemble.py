"""Chunks in, one dataset out: merged in input order, duplicates rejected, counts added up."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from prompts.dataset.card import SHOWN_ROWS, card
from prompts.dataset.chunk import read_batches
from prompts.dataset.fallen import Row, fallen
from prompts.dataset.files import DatasetError, sync, write_text
from prompts.dataset.first import First
from prompts.dataset.likeness import Judge, judged
from prompts.dataset.manifest import MANIFEST, Diff, Manifest
from prompts.dataset.schema import CHUNK_SCHEMA, RECORD_SCHEMA, REJECTED_SCHEMA, whole
from prompts.dataset.shards import Shards
from prompts.dataset.signals import SignalParts
from prompts.dataset.tally import Tally
from prompts.record import End, Reason
from prompts.seen import Seen, digest16
from prompts.signal import SUFFIX
from prompts.split import SPLITS

SHARD_BYTES = 256 << 20


def assemble(
    target: Path,
    chunks: Iterable[Path],
    *,
    recipe: Mapping[str, Any],
    seeds: int,
    name: str = "dataset",
    deduplicate: bool = True,
    target_rows: int | None = None,
    totals: Mapping[str, float] | None = None,
    shard_rows: int = 50_000,
    shard_bytes: int = SHARD_BYTES,
    signal: bool = False,
    diff: Diff | None = None,
    judges: Sequence[Judge] = (),
) -> Manifest:
    """Merges chunk files, given in input order, to a dataset at `target`; streams.

    `target` appears as a whole or not at all; its manifest is written last. `recipe` goes into
    recipe.yaml, `totals` into the manifest beside the tokens counted here. `shard_bytes` is of
    rows before compression. With `signal` each chunk's signal lies beside it, under its name with
    another suffix; that of accepted rows is copied. Of rows with the same prompt and completion the
    first is kept; `judges` look at accepted rows after that, in input order. With `target_rows` the
    first so many accepted rows are, the others not_needed.

    Raises ShortError if a row was left unasked before those, DatasetError if `target` exists, an id
    comes twice or the rows aren't `seeds` many, and OSError (a full disk, say) with nothing left
    behind.
    """
    if target.exists():
        raise DatasetError(f"{target} is already there; a dataset is never overwritten")
    with _unpublished(target) as root:
        tally = Tally()
        parts = dict.fromkeys(SPLITS, RECORD_SCHEMA) | {"rejected": REJECTED_SCHEMA}
        shards = [
            Shards(root, part, schema, shard_rows, shard_bytes) for part, schema in parts.items()
        ]
        signals = SignalParts(root)
        shown: list[Row] = []
        try:
            for chunk, accepted, others in _sorted_out(
                chunks, deduplicate, judges, First(target_rows)
            ):
                tally.add(accepted, others)
                shown += accepted.slice(0, SHOWN_ROWS - len(shown)).to_pylist()
                _distribute(shards, accepted, others)
                if signal and len(accepted):
                    signals.copy(chunk.with_suffix(SUFFIX), accepted["id"].to_pylist())
            _check_count(tally.rows, seeds)
            files = tuple(file for part in shards for file in part.finish(root))
            manifest = tally.manifest(name, files, totals or {}, signals.finish())
        finally:
            for part in shards:
                part.abandon()
            signals.abandon()
        manifest = manifest.model_copy(update={"diff": _told(diff, manifest)})
        _describe(root, manifest, recipe, shown)
    return manifest


def _told(diff: Diff | None, manifest: Manifest) -> Diff | None:
    if diff is None:
        return None
    kept = min(diff.kept, manifest.counts.accepted)
    return diff.model_copy(update={"kept": kept, "added": manifest.counts.accepted - kept})


@contextmanager
def _unpublished(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    root = target.parent / f".{target.name}.{uuid4().hex}"
    root.mkdir()
    try:
        yield root
        root.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _sorted_out(
    chunks: Iterable[Path], deduplicate: bool, judges: Sequence[Judge], first: First
) -> Iterator[tuple[Path, pa.Table, pa.Table]]:
    """Yields (chunk, accepted rows, all other rows) of `CHUNK_SCHEMA`, a batch at a time."""
    ids, hashes = Seen(), Seen()
    for chunk in chunks:
        for table in map(whole, read_batches(chunk)):
            _check_ids(ids, table)
            duplicates = _duplicates(hashes, len(ids), table) if deduplicate else {}
            if duplicates:
                table = _rejected_duplicates(table, duplicates)
            table = first.take(judged(table, judges))
            is_accepted = pc.equal(table["end"], End.ACCEPTED.value)
            yield chunk, table.filter(is_accepted), table.filter(pc.invert(is_accepted))


def _check_ids(ids: Seen, table: pa.Table) -> None:
    for row in table["id"].to_pylist():
        if ids.first(digest16(row), len(ids)) is not None:
            raise DatasetError(f"row {row!r} ended twice; every row must end exactly once")


def _duplicates(hashes: Seen, rows_with_these: int, table: pa.Table) -> dict[int, int]:
    """Index in this table -> number (from 1) of the earlier row that it repeats."""
    first_number = rows_with_these - len(table) + 1
    found = {}
    columns = zip(table["end"].to_pylist(), table["content_hash"].to_pylist(), strict=True)
    for index, (end, content) in enumerate(columns):
        if end == End.ACCEPTED:
            first = hashes.first(bytes.fromhex(content)[:16], first_number + index)
            if first is not None:
                found[index] = first
    return found


def _rejected_duplicates(table: pa.Table, duplicates: Mapping[int, int]) -> pa.Table:
    rows: list[Row] = table.to_pylist()
    for index, first in duplicates.items():
        detail = f"same prompt and completion as row number {first}"
        rows[index] = fallen(rows[index], End.REJECTED, Reason.DUPLICATE.value, detail)
    return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)


def _distribute(shards: Iterable[Shards], accepted: pa.Table, others: pa.Table) -> None:
    for part in shards:
        if part.part == "rejected":
            part.write(others)
        else:
            part.write(accepted.filter(pc.equal(accepted["split"], part.part)))


def _check_count(rows: int, seeds: int) -> None:
    if rows != seeds:
        raise DatasetError(f"{rows} rows ended, of {seeds} seeds: the chunks are not complete")


def _describe(
    root: Path, manifest: Manifest, recipe: Mapping[str, Any], shown: Sequence[Row]
) -> None:
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    write_text(root / "recipe.yaml", text)
    checks = (recipe.get("build") or {}).get("checks") or ()
    write_text(root / "README.md", card(manifest, text, shown, checks))
    for folder in ("data", "rejected"):
        sync(root / folder)
    write_text(root / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
