import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prompts.dataset import DatasetError, assemble, read_manifest, read_rows, write_chunk
from tests.prompts.making import ended


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    chunk = write_chunk(tmp_path / "c", ended(100)).path
    assemble(tmp_path / "out", [chunk], recipe={}, seeds=100)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no dataset: it has no manifest.json"),
        ("{", "no JSON"),
        ("[]", "of another kind"),
        ('{"format": "other", "version": 1}', "of another kind"),
        ('{"format": "retort-dataset", "version": 2}', "format version 2, this release reads 1"),
        ('{"format": "retort-dataset", "version": 1}', "not a version 1 manifest"),
    ],
)
def test_what_is_no_dataset_says_why(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match=words):
        read_manifest(tmp_path)


def test_a_file_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DatasetError, match="no manifest"):
        read_manifest(tmp_path / "f")


def test_only_listed_files_are_read(dataset: Path) -> None:
    rows = list(read_rows(dataset, "train"))
    stray = dataset / "data" / "train-00001-of-00002.parquet"
    stray.write_bytes((dataset / "data" / "train-00000-of-00001.parquet").read_bytes())
    assert list(read_rows(dataset, "train")) == rows


def test_an_incomplete_copy_is_noticed(dataset: Path) -> None:
    shard = dataset / "data" / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="bytes, not"):
        list(read_rows(dataset, "train"))
    shard.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        list(read_rows(dataset, "train"))


@pytest.mark.parametrize("part", ["footer", "pages"])
def test_damage_that_leaves_a_files_size_is_named(dataset: Path, part: str) -> None:
    shard = dataset / "data" / "train-00000-of-00001.parquet"
    held = bytearray(shard.read_bytes())
    middle = len(held) // 2
    start, end = (middle, len(held) - 8) if part == "footer" else (4, middle)
    held[start:end] = bytes(byte ^ 0xFF for byte in held[start:end])
    shard.write_bytes(held)
    with pytest.raises(DatasetError, match="parquet is damaged, copy the dataset again"):
        list(read_rows(dataset, "train"))


def test_a_column_that_rows_lack_is_named(dataset: Path) -> None:
    shard = dataset / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["completion"]), shard)
    manifest = json.loads((dataset / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == f"data/{shard.name}":
            file["bytes"] = shard.stat().st_size
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=r"parquet lacks the column completion: its rows"):
        list(read_rows(dataset, "train"))


def test_a_manifest_of_the_first_version_is_what_is_written(dataset: Path) -> None:
    content = json.loads((dataset / "manifest.json").read_text())
    assert (content["format"], content["version"]) == ("retort-dataset", 1)
