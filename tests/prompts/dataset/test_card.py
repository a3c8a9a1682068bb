"""`datasets` itself opens what is written here."""

from pathlib import Path

import pytest

from prompts.dataset import assemble, write_chunk
from prompts.record import Record, Rejected
from tests.prompts.making import ended


def opened(folder: Path, rows: list[Record | Rejected], *config: str):  # type: ignore[no-untyped-def]
    from datasets import load_dataset

    if not (folder / "out").exists():
        chunk = write_chunk(folder / "c", rows).path
        assemble(folder / "out", [chunk], recipe={}, seeds=len(rows))
    return load_dataset(str(folder / "out"), *config, cache_dir=str(folder / "cache"))


def test_load_dataset_opens_three_splits_and_the_rejected_apart(tmp_path: Path) -> None:
    rows = ended(200)
    loaded = opened(tmp_path, rows)
    assert list(loaded) == ["train", "validation", "test"]
    assert sum(map(len, loaded.values())) == 100
    first = loaded["train"][0]
    expected = next(row for row in rows if isinstance(row, Record) and row.split == "train")
    assert Record.model_validate(first) == expected
    rejected = opened(tmp_path, rows, "rejected")
    assert {name: len(part) for name, part in rejected.items()} == {"rejected": 100}


def test_splits_without_rows_do_not_stop_it(tmp_path: Path) -> None:
    rows = [row for row in ended(40) if isinstance(row, Record) and row.split == "train"]
    assert {name: len(part) for name, part in opened(tmp_path, rows).items()} == {
        "train": len(rows)
    }


def test_an_empty_dataset_never_opens_its_rejected_rows_instead(tmp_path: Path) -> None:
    rows = [row for row in ended(40) if isinstance(row, Rejected)]
    with pytest.raises(ValueError, match="no data"):
        opened(tmp_path, rows)
    assert len(opened(tmp_path, rows, "rejected")["rejected"]) == 20
