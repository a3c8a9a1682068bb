import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prompts.dataset import (
    DatasetError,
    Manifest,
    assemble,
    file_sha256,
    read_manifest,
    read_rejected,
    read_rows,
    write_chunk,
)
from prompts.record import Reason, Record, Rejected, ToolCall, as_rejected
from prompts.split import SPLITS
from tests.prompts.making import ended, plan_of, said, spec_of

Rows = list[Record | Rejected]


def chunked(folder: Path, rows: Rows, size: int = 70) -> list[Path]:
    starts = range(0, len(rows), size)
    return [write_chunk(folder / f"{i}.parquet", rows[i : i + size]).path for i in starts]


def assembled(folder: Path, rows: Rows, size: int = 70, **options: Any) -> Manifest:
    paths = chunked(folder / "chunks", rows, size)
    return assemble(folder / "out", paths, recipe={"a": 1}, seeds=len(rows), **options)


def test_every_row_is_read_back_in_order(tmp_path: Path) -> None:
    rows = ended(400)
    manifest = assembled(tmp_path, rows, name="mine", totals={"gpu_seconds": 2.5})
    for split in SPLITS:
        expected = [row for row in rows if isinstance(row, Record) and row.split == split]
        assert list(read_rows(tmp_path / "out", split)) == expected
        assert manifest.splits[split] == len(expected) > 0
    assert list(read_rejected(tmp_path / "out")) == [r for r in rows if isinstance(r, Rejected)]


def test_the_manifest_adds_up(tmp_path: Path) -> None:
    manifest = assembled(tmp_path, ended(400), name="mine", totals={"gpu_seconds": 2.5})
    assert manifest == read_manifest(tmp_path / "out")
    counts = manifest.counts
    assert counts.model_dump() == {
        "seeds": 400,
        "accepted": 200,
        "rejected": 100,
        "not_needed": 100,
    }
    assert manifest.reasons == {"target": 100, "wrong_answer": 100}
    assert manifest.totals == {
        "prompt_tokens": 900,
        "completion_tokens": 600,
        "gpu_seconds": 2.5,
    }
    assert (manifest.name, manifest.kinds, manifest.teachers) == ("mine", ("cot",), ("teacher",))
    assert manifest.teacher_revisions == ("r1",)
    for file in manifest.files:
        path = tmp_path / "out" / file.path
        assert (file.bytes, file.sha256) == (path.stat().st_size, file_sha256(path))


def test_recipe_and_card_lie_beside(tmp_path: Path) -> None:
    assembled(tmp_path, ended(40), name="mine")
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text()) == {"a": 1}
    assert "# mine" in (tmp_path / "out" / "README.md").read_text()


def test_the_bytes_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    rows = ended(300)
    first = assembled(tmp_path / "a", rows, size=7, shard_rows=60)
    second = assembled(tmp_path / "b", rows, size=300, shard_rows=60)
    assert first == second


def test_shards_are_numbered_and_full(tmp_path: Path) -> None:
    manifest = assembled(tmp_path, ended(400), shard_rows=60)
    train = [file for file in manifest.files if file.part == "train"]
    assert [file.rows for file in train][:-1] == [60] * (len(train) - 1)
    assert [file.path for file in train] == [
        f"data/train-{i:05d}-of-{len(train):05d}.parquet" for i in range(len(train))
    ]
    assert len(train) > 2


@pytest.mark.slow
def test_shards_end_at_their_bytes_too(tmp_path: Path) -> None:
    rows = ended(4400)
    manifest = assembled(tmp_path, rows, size=5000, shard_bytes=1)
    assert [f.rows for f in manifest.files if f.part == "rejected"] == [1000, 1000, 200]


def repeated() -> Rows:
    plan = plan_of(spec_of("if"))
    seeds = [{"id": str(i), "instruction": f"do {i % 100}"} for i in range(250)]
    rows = [plan.next(seed, said(seed, "done")) for seed in seeds]
    return [row for row in rows if isinstance(row, Record)]


@pytest.mark.parametrize("size", [30, 250])
def test_the_first_of_equal_rows_wins_across_chunks(tmp_path: Path, size: int) -> None:
    manifest = assembled(tmp_path, repeated(), size=size)
    accepted = {row.id for split in SPLITS for row in read_rows(tmp_path / "out", split)}
    assert accepted == {str(i) for i in range(100)}
    rejected = list(read_rejected(tmp_path / "out"))
    assert [row.id for row in rejected] == [str(i) for i in range(100, 250)]
    assert manifest.reasons == {"duplicate": 150}
    assert rejected[5].raw == ("done",)
    assert rejected[5].detail == "same prompt and completion as row number 6"


def test_what_falls_keeps_its_calls_its_thoughts_and_how_it_was_asked(tmp_path: Path) -> None:
    function = {"name": "look_up", "arguments": "{}"}
    calls = (ToolCall.model_validate({"id": "c1", "function": function}),)
    plan = plan_of(spec_of("if", tools=[{"type": "function", "function": {"name": "look_up"}}]))
    seeds = [{"id": str(i), "instruction": "do"} for i in range(2)]
    answer = {"tool_calls": calls, "finish_reason": "tool_calls", "reasoning": "hm"}
    rows = [plan.next(seed, said(seed, "", **answer)) for seed in seeds]
    records = [row for row in rows if isinstance(row, Record)]
    assembled(tmp_path, records, size=2)
    (fell,) = read_rejected(tmp_path / "out")
    assert fell.model_dump(exclude={"end", "reason", "detail"}) == as_rejected(
        records[1], Reason.DUPLICATE, ""
    ).model_dump(exclude={"end", "reason", "detail"})
    assert json.loads(fell.raw[0])[0]["function"] == function
    assert (fell.completion, fell.rationale) == (records[1].completion, "hm")


def test_the_manifest_counts_what_was_flagged(tmp_path: Path) -> None:
    flags: list[tuple[str, ...]] = [("personal_data",), (), ("personal_data", "personal_data")]
    records = [row for row in ended(12) if isinstance(row, Record)]
    rows: Rows = [row.model_copy(update={"flags": flags[n % 3]}) for n, row in enumerate(records)]
    # Flagged, and then not kept: rejected rows are counted by their reason.
    rows.append(as_rejected(records[0].model_copy(update={"id": "x"}), Reason.BY_HAND, "no"))
    manifest = assembled(tmp_path, rows)
    assert manifest.flags == {"personal_data": 4}
    assert read_manifest(tmp_path / "out").flags == {"personal_data": 4}
    assert assembled(tmp_path / "none", ended(8)).flags == {}


def test_a_chunk_of_an_earlier_release_is_taken(tmp_path: Path) -> None:
    (path,) = chunked(tmp_path / "chunks", ended(8))
    table = pq.read_table(path)
    empty = {"completion": None, "flags": None, "sampling": None}
    rows = [row if row["end"] == "accepted" else {**row, **empty} for row in table.to_pylist()]
    old = pa.Table.from_pylist(rows, schema=table.schema).drop_columns(["rationale"])
    pq.write_table(old, path)
    manifest = assemble(tmp_path / "out", [path], recipe={}, seeds=8)
    assert (manifest.counts.accepted, manifest.counts.rejected) == (4, 2)
    assert {row.completion for row in read_rejected(tmp_path / "out")} == {()}


def test_duplicates_stay_where_they_are_wanted(tmp_path: Path) -> None:
    assert assembled(tmp_path, repeated(), deduplicate=False).counts.accepted == 250


def test_counts_must_add_up(tmp_path: Path) -> None:
    paths = chunked(tmp_path / "chunks", ended(100))
    with pytest.raises(DatasetError, match="30 rows ended, of 100 seeds"):
        assemble(tmp_path / "out", paths[1:], recipe={}, seeds=100)
    with pytest.raises(DatasetError, match="'q70' ended twice"):
        assemble(tmp_path / "out", [paths[1], paths[1]], recipe={}, seeds=60)
    assert [path.name for path in tmp_path.iterdir()] == ["chunks"]


def test_a_dataset_is_never_overwritten(tmp_path: Path) -> None:
    manifest = assembled(tmp_path, ended(10))
    with pytest.raises(DatasetError, match="already there"):
        assemble(tmp_path / "out", [], recipe={}, seeds=0)
    assert read_manifest(tmp_path / "out") == manifest


def test_nothing_is_left_of_an_assembly_that_failed(tmp_path: Path) -> None:
    paths = chunked(tmp_path / "chunks", ended(100))

    def torn():  # type: ignore[no-untyped-def]
        yield paths[0]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        assemble(tmp_path / "out", torn(), recipe={}, seeds=100)
    assert [path.name for path in tmp_path.iterdir()] == ["chunks"]


def test_without_an_accepted_row_it_is_marked_empty(tmp_path: Path) -> None:
    rows = [row for row in ended(40) if isinstance(row, Rejected)]
    manifest = assembled(tmp_path, rows)
    assert manifest.empty
    assert list(read_rows(tmp_path / "out", "train")) == []
    assert len(list(read_rejected(tmp_path / "out"))) == 20
    assert "no row was accepted" in (tmp_path / "out" / "README.md").read_text()
