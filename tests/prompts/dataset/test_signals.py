from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prompts.dataset import (
    DatasetError,
    Manifest,
    assemble,
    open_signal,
    read_manifest,
    write_chunk,
)
from prompts.record import Record, Rejected
from prompts.signal import SignalHeader, TopKRow, top_k_row, write_signal
from tests.prompts.making import ended

HEADER = SignalHeader(kind="top_k", width=2, teacher="teacher", vocabulary=50)


def test_accepted_rows_keep_their_signal_and_the_others_have_none(tmp_path: Path) -> None:
    rows = ended(40)
    manifest = assembled(tmp_path, rows)
    accepted = [row.id for row in rows if isinstance(row, Record)]
    assert manifest.signal is not None
    assert (manifest.signal.rows, manifest.signal.width) == (len(accepted), 2)
    assert read_manifest(tmp_path / "out") == manifest
    with open_signal(tmp_path / "out") as reader:
        assert [name for name, _ in reader.scan()] == accepted
        for number, row in enumerate(rows):
            assert (row.id in reader) == isinstance(row, Record)
            if isinstance(row, Record):
                assert reader.read(row.id).token_ids.tolist() == signal(number).token_ids.tolist()


def test_a_duplicate_loses_its_signal_too(tmp_path: Path) -> None:
    first, *_ = ended(1)
    assert isinstance(first, Record)
    manifest = assembled(tmp_path, [first, first.model_copy(update={"id": "again"})])
    assert manifest.signal is not None
    assert manifest.signal.rows == 1


def test_signals_of_many_tokens_are_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prompts.dataset.signals.SignalParts.__init__.__defaults__", (10,))
    manifest = assembled(tmp_path, ended(40))
    assert manifest.signal is not None
    assert len(manifest.signal.files) > 1
    with open_signal(tmp_path / "out") as reader:
        assert reader.rows_total == manifest.signal.rows


def test_a_row_without_a_signal_is_named(tmp_path: Path) -> None:
    rows = ended(8)
    paths = chunks(tmp_path / "chunks", rows, missing={rows[4].id})
    with pytest.raises(DatasetError, match=f"{rows[4].id!r} has no signal"):
        assemble(tmp_path / "out", paths, recipe={}, seeds=8, signal=True)
    assert not (tmp_path / "out").exists()


def test_chunks_of_different_headers_are_refused(tmp_path: Path) -> None:
    rows = ended(8)
    one = chunks(tmp_path / "a", rows[:4])
    two = chunks(tmp_path / "b", rows[4:], header=HEADER.model_copy(update={"teacher": "other"}))
    with pytest.raises(DatasetError, match="different headers"):
        assemble(tmp_path / "out", [*one, *two], recipe={}, seeds=8, signal=True)


def test_a_dataset_without_signal_and_one_with_a_file_missing_say_so(tmp_path: Path) -> None:
    assemble(tmp_path / "no", chunks(tmp_path / "c", ended(4)), recipe={}, seeds=4)
    with pytest.raises(DatasetError, match="has no teacher signal"):
        open_signal(tmp_path / "no")
    manifest = assembled(tmp_path, ended(8))
    assert manifest.signal is not None
    (tmp_path / "out" / manifest.signal.files[0].path).unlink()
    with pytest.raises(DatasetError, match="is missing"):
        open_signal(tmp_path / "out")


def assembled(folder: Path, rows: Sequence[Record | Rejected]) -> Manifest:
    paths = chunks(folder / "chunks", rows)
    return assemble(folder / "out", paths, recipe={}, seeds=len(rows), signal=True)


def chunks(
    folder: Path,
    rows: Sequence[Record | Rejected],
    missing: frozenset[str] | set[str] = frozenset(),
    header: SignalHeader = HEADER,
) -> list[Path]:
    """Chunks of five rows, each with its signal beside it."""
    paths = []
    for start in range(0, len(rows), 5):
        part = rows[start : start + 5]
        path = write_chunk(folder / f"{start:03d}.parquet", part).path
        signals = [
            (row.id, signal(start + place))
            for place, row in enumerate(part)
            if isinstance(row, Record) and row.id not in missing
        ]
        write_signal(path.with_suffix(".signal"), header, signals)
        paths.append(path)
    return paths


def signal(number: int) -> TopKRow:
    tokens = np.arange(number % 5 + 1, dtype=np.int32) + number % 40
    ids = np.stack([tokens, tokens + 1], axis=1)
    return top_k_row(tokens, ids, np.log(np.full(ids.shape, 0.4, np.float32)))
