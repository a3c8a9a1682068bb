import errno
from pathlib import Path

import pytest

from prompts.dataset import file_sha256, write_chunk
from prompts.dataset.chunk import read_batches
from prompts.dataset.schema import CHUNK_SCHEMA, RECORD_SCHEMA, REJECTED_SCHEMA
from prompts.record import Record, Rejected
from tests.prompts.making import ended


def test_a_chunk_counts_its_ends(tmp_path: Path) -> None:
    chunk = write_chunk(tmp_path / "deep" / "c.parquet", ended(10))
    assert (chunk.rows, chunk.accepted, chunk.rejected, chunk.not_needed) == (10, 6, 2, 2)
    assert chunk.sha256 == file_sha256(chunk.path)
    assert sum(len(table) for table in read_batches(chunk.path)) == 10


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first = write_chunk(tmp_path / "a", ended(50))
    assert write_chunk(tmp_path / "b", iter(ended(50))).sha256 == first.sha256
    assert write_chunk(tmp_path / "c", ended(49)).sha256 != first.sha256


def test_nothing_is_left_of_a_chunk_that_failed(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield from ended(2000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_chunk(tmp_path / "c.parquet", rows())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_chunk_is_a_chunk(tmp_path: Path) -> None:
    assert write_chunk(tmp_path / "c", []).rows == 0
    assert list(read_batches(tmp_path / "c")) == []


def test_the_columns_are_the_models_fields() -> None:
    assert RECORD_SCHEMA.names == list(Record.model_fields)
    assert REJECTED_SCHEMA.names == list(Rejected.model_fields)
    assert set(CHUNK_SCHEMA.names) == {*Record.model_fields, *Rejected.model_fields}
