import json
from pathlib import Path

import pytest

from prompts.dataset import assemble, read_rejected, read_rows, write_chunk
from prompts.dataset.likeness import Judge, contamination, near_duplicates, novelty
from prompts.overlap import EvaluationSet, evaluation_texts
from prompts.record import Message, Record
from prompts.spec.likeness import NearDuplicates, Novelty
from prompts.split import SPLITS
from tests.prompts.making import ended

TEXTS = [
    "Write a short poem about the sea at night",
    "Write a short poem about the sea at dawn",
    "List four uses of an old newspaper",
    "Write a short poem about the sea at night please",
]


def test_rows_like_an_earlier_one_are_rejected_with_its_id(tmp_path: Path) -> None:
    rejected = rejections(tmp_path, [novelty(Novelty(rouge_l=0.7))])
    assert [(row, reason, like) for row, reason, like in rejected] == [
        ("r1", "not_novel", "r0"),
        ("r3", "not_novel", "r0"),
    ]


def test_the_limit_and_the_part_decide(tmp_path: Path) -> None:
    assert rejections(tmp_path / "a", [novelty(Novelty(rouge_l=0.93))]) == [
        ("r3", "not_novel", "r0")
    ]
    of_answers = rejections(tmp_path / "b", [novelty(Novelty(of="completion", rouge_l=0.5))])
    assert [row for row, _, _ in of_answers] == ["r1", "r2", "r3"]  # all say 'Answer n.'


def test_near_duplicates_of_this_dataset_and_of_another(tmp_path: Path) -> None:
    spec = NearDuplicates(jaccard=0.6, of="prompt", shingle_words=2)
    assert rejections(tmp_path / "a", [near_duplicates(spec)]) == [
        ("r1", "near_duplicate", "r0"),
        ("r3", "near_duplicate", "r0"),
    ]
    earlier = [("ds-1", record(7, TEXTS[2]))]
    again = rejections(tmp_path / "b", [near_duplicates(spec, earlier)])
    assert ("r2", "near_duplicate", "ds-1/r7") in again


def test_rows_that_hold_an_evaluation_question_are_rejected(tmp_path: Path) -> None:
    known = EvaluationSet("held-out", [("e5", "list four uses of an old newspaper!")])
    assert rejections(tmp_path, [contamination(known)]) == [("r2", "contaminated", "e5")]


def test_rows_whose_seed_is_an_evaluation_row_are_rejected_however_they_ask() -> None:
    exam = [{"id": "e1", "instruction": "Translate to French.", "input": "red apple"}]
    known = EvaluationSet("held-out", evaluation_texts(exam))
    seed = json.dumps({"id": "r0", "instruction": "Translate to French.", "input": "red apple"})
    asked = (Message(role="user", content="Input: red apple. What is it, translated to French?"),)
    row = record(0, "").model_copy(update={"seed": seed, "prompt": asked})
    fault = contamination(known)(row.model_dump(mode="json"))
    assert fault is not None
    assert fault.resembles == "e1"
    other = row.model_copy(update={"seed": seed.replace("red apple", "green pear")})
    assert contamination(known)(other.model_dump(mode="json")) is None


def test_the_first_judge_that_objects_is_heard(tmp_path: Path) -> None:
    known = EvaluationSet("held-out", [("e5", TEXTS[0])])
    judges = [contamination(known), novelty(Novelty())]
    # r0 is gone, so r1 joins the pool in its place.
    assert rejections(tmp_path, judges) == [
        ("r0", "contaminated", "e5"),
        ("r3", "not_novel", "r1"),
    ]


def test_rejected_rows_keep_their_raw_text_and_reason(tmp_path: Path) -> None:
    rejections(tmp_path, [novelty(Novelty())])
    row = next(iter(read_rejected(tmp_path / "out")))
    assert row.raw == ("Answer 1.",)
    assert row.detail == "ROUGE-L 0.889 with row 'r0'"


@pytest.mark.parametrize("size", [1, 4])
def test_chunks_make_no_difference(tmp_path: Path, size: int) -> None:
    found = rejections(tmp_path, [novelty(Novelty())], size)
    assert [row for row, _, _ in found] == ["r1", "r3"]


def rejections(folder: Path, judges: list[Judge], size: int = 2) -> list[tuple[str, str, str]]:
    rows = [record(number, text) for number, text in enumerate(TEXTS)]
    paths = [
        write_chunk(folder / f"{start}.parquet", rows[start : start + size]).path
        for start in range(0, len(rows), size)
    ]
    manifest = assemble(folder / "out", paths, recipe={}, seeds=len(rows), judges=judges)
    kept = sum(len(list(read_rows(folder / "out", split))) for split in SPLITS)
    rejected = list(read_rejected(folder / "out"))
    assert kept + len(rejected) == len(rows) == manifest.counts.seeds
    return [(row.id, row.reason, row.resembles or "") for row in rejected]


def record(number: int, text: str) -> Record:
    made = ended(1)[0]
    assert isinstance(made, Record)
    return made.model_copy(
        update={
            "id": f"r{number}",
            "prompt": (Message(role="user", content=text),),
            "completion": (Message(role="assistant", content=f"Answer {number}."),),
            "content_hash": f"{number:08x}" * 8,
        }
    )
