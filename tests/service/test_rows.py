from pathlib import Path
from typing import Any

import duckdb
import pytest

from prompts.dataset import assemble, read_rejected, read_rows, write_chunk
from prompts.record import Kind, Message, Record, Rejected
from service import rows
from service.problems import Problem
from service.rows import Wanted
from tests.prompts.making import ended

HOSTILE = "'; DROP TABLE x; -- %_\\ \" $1 日 Straße"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows in shards of 50; some prompts hold what search must take literally."""
    folder = tmp_path_factory.mktemp("rows")
    made = [marked(row) if number % 40 == 0 else row for number, row in enumerate(ended(400))]
    chunk = write_chunk(folder / "0.parquet", made).path
    assemble(folder / "out", [chunk], recipe={}, seeds=400, shard_rows=50)
    return folder / "out"


def marked(row: Record | Rejected) -> Record | Rejected:
    turn = Message(role="user", content=f"Look: {HOSTILE} end")
    return row.model_copy(update={"prompt": (*row.prompt, turn)})


def paged(path: Path, **wanted: Any) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        page = rows.accepted(path, "train", Wanted(after=after, **wanted))
        found += [row.id for row in page.rows]
        if page.next is None:
            return found
        after = page.next


def test_pages_hold_every_row_once_in_order(dataset: Path) -> None:
    expected = [row.id for row in read_rows(dataset, "train")]
    assert len(expected) > 150
    assert paged(dataset, limit=37) == expected


def test_a_row_is_what_the_reader_of_datasets_reads(dataset: Path) -> None:
    assert rows.accepted(dataset, "train", Wanted(limit=1)).rows[0] == next(
        read_rows(dataset, "train")
    )
    assert rows.rejected(dataset, Wanted(limit=1)).rows[0] == next(read_rejected(dataset))


@pytest.mark.parametrize("search", [HOSTILE, HOSTILE.lower(), "DROP TABLE", "%_\\", "STRASSE"[:4]])
def test_a_search_is_literal_text_in_any_case(dataset: Path, search: str) -> None:
    expected = [
        row.id
        for row in read_rows(dataset, "train")
        if any(search.lower() in turn.content.lower() for turn in row.prompt)
    ]
    assert expected
    assert paged(dataset, search=search, limit=3) == expected


def test_filters_narrow(dataset: Path) -> None:
    reasons = {row.reason for row in rows.rejected(dataset, Wanted(reason="target")).rows}
    assert reasons == {"target"}
    assert rows.accepted(dataset, "train", Wanted(kind=Kind.ICL)).rows == []
    assert rows.accepted(dataset, "train", Wanted(kind=Kind.COT, limit=5)).rows
    assert rows.rejected(dataset, Wanted(search="no such text anywhere")).rows == []


def test_a_reason_of_accepted_rows_and_a_foreign_cursor_are_refused(dataset: Path) -> None:
    for wanted in (Wanted(reason="target"), Wanted(after="1; SELECT"), Wanted(after="9")):
        with pytest.raises(Problem) as caught:
            rows.accepted(dataset, "train", wanted)
        assert caught.value.status == 422
    assert rows.accepted(dataset, "train", Wanted(after="999.0")).rows == []


def test_one_row_is_found_however_it_ended(dataset: Path) -> None:
    assert rows.one(dataset, "q0").id == "q0"
    assert isinstance(rows.one(dataset, "q3"), Rejected)
    with pytest.raises(Problem, match="no row"):
        rows.one(dataset, "q9999")


def test_lengths_count_every_accepted_row(dataset: Path) -> None:
    found = rows.lengths(dataset)
    accepted = sum(
        1 for split in ("train", "validation", "test") for _ in read_rows(dataset, split)
    )
    assert sum(bucket.rows for bucket in found) == accepted
    assert all(bucket.low < bucket.high for bucket in found)


def test_the_database_reads_no_file_but_the_datasets(dataset: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a\n1\n")
    with (
        rows._database(dataset) as database,
        pytest.raises(duckdb.PermissionException),
    ):
        database.execute("SELECT * FROM read_csv($file)", {"file": str(foreign)})


def test_files_that_are_gone_are_a_404(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        rows.accepted(tmp_path, "train", Wanted())
    assert caught.value.status == 404


def test_rows_by_id_however_they_ended(dataset: Path) -> None:
    kept, dropped = next(read_rows(dataset, "train")), next(read_rejected(dataset))
    found = rows.some(dataset, [dropped.id, "nobody", kept.id])
    assert found == {kept.id: kept, dropped.id: dropped}
    assert rows.some(dataset, []) == {}


def test_confidences_are_counted_in_equal_steps(tmp_path: Path) -> None:
    made = [
        row.model_copy(update={"confidence": (0.0, 0.5, 0.54, 1.0, None)[number % 5]})
        for number, row in enumerate(row for row in ended(60) if isinstance(row, Record))
    ]
    chunk = write_chunk(tmp_path / "0.parquet", made).path
    assemble(tmp_path / "out", [chunk], recipe={}, seeds=len(made), deduplicate=False)
    found = {(one.low, one.high): one.rows for one in rows.confidences(tmp_path / "out")}
    each = len(made[::5]), len(made[1::5]) + len(made[2::5]), len(made[3::5])
    assert found == {(0.0, 0.05): each[0], (0.5, 0.55): each[1], (0.95, 1.0): each[2]}


def test_rows_without_confidence_have_no_chart(dataset: Path) -> None:
    assert rows.confidences(dataset) == []
