import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prompts.dataset import DatasetError, import_dataset, read_manifest, read_rows
from prompts.record import Kind, Message, Record, Rejected
from prompts.split import SPLITS
from tests.prompts.making import lines_of

TALK = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
REPLY = [{"role": "assistant", "content": "a"}]


def imported(tmp_path: Path, source: Path, **options: Any) -> list[Record]:
    import_dataset(source, tmp_path / "out", **{"kind": "if", "name": "mine", **options})
    assert read_manifest(tmp_path / "out").name == "mine"
    return [row for split in SPLITS for row in read_rows(tmp_path / "out", split)]


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(lines_of(*rows)))
    return path


def test_texts_and_messages_become_the_same_form(tmp_path: Path) -> None:
    rows = imported(
        tmp_path,
        jsonl(
            tmp_path,
            {"prompt": "p", "completion": "c", "split": "train", "answer": 3, "note": "kept"},
            {"prompt": TALK, "completion": REPLY, "split": "test", "id": "mine"},
        ),
    )
    assert rows[0].prompt == (Message(role="user", content="p"),)
    assert rows[0].completion == (Message(role="assistant", content="c"),)
    assert (rows[0].id, rows[0].answer, rows[0].kind) == ("row-000001", "3", Kind.IF)
    assert json.loads(rows[0].seed)["note"] == "kept"
    assert [turn.role for turn in rows[1].prompt] == ["system", "user"]
    assert (rows[1].id, rows[1].split) == ("mine", "test")


def test_parquet_is_read(tmp_path: Path) -> None:
    table = pa.table({"prompt": [TALK, TALK], "completion": ["x", "y"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = imported(tmp_path, tmp_path / "rows.parquet")
    assert sorted(row.completion[0].content for row in rows) == ["x", "y"]


def test_a_saved_dataset_keeps_its_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    one = Dataset.from_dict({"prompt": ["a"], "completion": ["b"]})
    two = Dataset.from_dict({"prompt": [TALK], "completion": [REPLY]})
    DatasetDict({"train": one, "test": two}).save_to_disk(str(tmp_path / "saved"))
    rows = imported(tmp_path, tmp_path / "saved")
    assert [(row.split, len(row.prompt)) for row in rows] == [("train", 1), ("test", 2)]
    one.save_to_disk(str(tmp_path / "single"))
    (tmp_path / "again").mkdir()
    assert len(imported(tmp_path / "again", tmp_path / "single")) == 1


def test_a_hash_of_the_prompt_splits_what_has_no_splits(tmp_path: Path) -> None:
    source = jsonl(tmp_path, *({"prompt": str(i), "completion": "c"} for i in range(300)))
    rows = imported(tmp_path, source)
    splits = {row.prompt[0].content: row.split for row in rows}
    assert set(splits.values()) == set(SPLITS)
    (tmp_path / "b").mkdir()
    shuffled = jsonl(tmp_path / "b", *({"prompt": str(i), "completion": "d"} for i in range(299)))
    again = imported(tmp_path / "b", shuffled)
    assert all(splits[row.prompt[0].content] == row.split for row in again)


def test_chains_of_thought_are_parsed(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"prompt": "p", "completion": "So. The answer is 4."})
    (row,) = imported(tmp_path, source, kind="cot")
    assert (row.answer, row.reasoning) == ("4", "So.")


def test_equal_rows_are_rejected_as_duplicates(tmp_path: Path) -> None:
    source = jsonl(tmp_path, *[{"prompt": "p", "completion": "c"}] * 3)
    assert len(imported(tmp_path, source)) == 1
    assert read_manifest(tmp_path / "out").reasons == {"duplicate": 2}


GOOD = {"prompt": "p", "completion": "c"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"prompt": "p"}, "line 2, column 'completion': is missing; the row's columns: prompt"),
        ({"prompt": 3, "completion": "c"}, "line 2, column 'prompt': must be a text or a list"),
        ({"prompt": [{"role": "boss", "content": ""}], "completion": "c"}, "column 'prompt': .*0"),
        ({"prompt": "p", "completion": []}, "column 'completion': is empty"),
        ({"prompt": "p", "completion": " "}, "column 'completion': is empty"),
        ({**GOOD, "split": "dev"}, "column 'split': is 'dev'"),
        ({**GOOD, "answer": [1]}, "column 'answer': must be a text or a number, not list"),
        ({**GOOD, "id": "row-000001"}, "row-000001"),
        ([1], "rows.jsonl: line 2: holds a JSON array"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_left(tmp_path: Path, bad: Any, words: str) -> None:
    source = jsonl(tmp_path, GOOD, bad)
    with pytest.raises(DatasetError, match=words):
        import_dataset(source, tmp_path / "out", kind="if")
    assert list(tmp_path.iterdir()) == [source]


def test_what_cannot_be_imported_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "none.parquet")
    imported(tmp_path, jsonl(tmp_path, GOOD))
    for name, words in {
        "a.csv": "can import",
        "a.parquet": "no Parquet",
        "empty": "save_to_disk",
        "missing.jsonl": "does not exist",
        "out": "already",
        "none.parquet": "no rows",
    }.items():
        with pytest.raises(DatasetError, match=words):
            import_dataset(tmp_path / name, tmp_path / "new", kind="if")
    with pytest.raises(DatasetError, match="one of: icl, cot, if"):
        import_dataset(tmp_path / "rows.jsonl", tmp_path / "new", kind="chat")


def test_ids_of_parquet_rows_are_unique(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a", "b"], "completion": ["x", "y"], "id": [7, 7]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match="row 2, column 'id': '7' was used by row 1"):
        import_dataset(tmp_path / "rows.parquet", tmp_path / "out", kind="if")


def test_nothing_imported_is_rejected_but_duplicates(tmp_path: Path) -> None:
    assert not [r for r in imported(tmp_path, jsonl(tmp_path, GOOD)) if isinstance(r, Rejected)]
