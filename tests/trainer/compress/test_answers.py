"""A few questions' answers that stand side by side through a chain."""

import json
from pathlib import Path

import pytest

from tests.trainer.compress.chains import inputs, make_spec
from tests.trainer.compress.world import write_questions
from trainer import evaluate
from trainer.compress.answers import CHARACTERS, beside_first, chosen
from trainer.compress.chain import run
from trainer.compress.report import StageReport
from trainer.evaluate import Answered, is_right
from trainer.events import silent
from trainer.generation import Answers, answer_greedily
from trainer.spec import EvalRow, EvalSpec, read_rows

__all__ = ["inputs"]


def answered(number: int, text: str = "7") -> Answered:
    prompt = {"role": "user", "content": f"How many are {number}?"}
    row = EvalRow(id=f"q{number}", skill="s", prompt=(prompt,), answer="7", check="numeric")
    return Answered(row, text, is_right(row, text))


def test_at_most_five_questions_are_kept_evenly_spread() -> None:
    assert [one.id for one in chosen([answered(i) for i in range(12)])] == [
        *("q0", "q2", "q4", "q7", "q9"),
    ]
    assert [one.id for one in chosen([answered(i) for i in range(3)])] == ["q0", "q1", "q2"]
    assert chosen([]) == ()


def test_a_long_answer_keeps_its_beginning_and_its_end() -> None:
    (kept,) = chosen([answered(1, "so " * 1000 + "the answer is 7")])
    assert kept.made.right
    assert len(kept.made.text) <= CHARACTERS + len(" … ")
    assert kept.made.text.startswith("so so")
    assert kept.made.text.endswith("the answer is 7")


def test_an_answer_stands_beside_the_first_models() -> None:
    first = chosen([answered(1), answered(2)])
    now = chosen([answered(1), answered(2, "8")])
    same, other = beside_first(first, now)
    assert (same.first, same.made, same.changed) == (same.made, same.first, False)
    assert (other.first.text, other.made.text, other.changed) == ("7", "8", True)
    assert (other.first.right, other.made.right) == (True, False)
    assert beside_first((), now) == ()


@pytest.mark.slow
def test_each_stage_keeps_its_answers_to_the_same_questions(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that measuring asked for anyway, after an interruption too."""
    asked: list[Answers] = []

    def noted(*given: object) -> Answers:
        asked.append(answer_greedily(*given))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(evaluate, "answer_greedily", noted)
    questions = write_questions(tmp_path / "q.jsonl")
    stages = ({"kind": "depth"}, {"kind": "svd"}, {"kind": "evaluate", "on": "start"})
    spec = EvalSpec(data=str(questions), max_new_tokens=4)
    (alone,) = run(make_spec(inputs, stages[0], evaluate=spec), tmp_path / "out", silent)
    reports = run(make_spec(inputs, *stages, evaluate=spec), tmp_path / "out", silent)
    assert len(asked) == 1 + len(stages)
    assert reports[0].answers == alone.answers
    gold = {row.id: row.answer for row in read_rows(questions)}
    for report in reports:
        assert [one.id for one in report.answers] == ["q0", "q2", "q4", "q7", "q9"]
        assert [one.first for one in report.answers] == [one.first for one in alone.answers]
        assert all(one.gold == gold[one.id] for one in report.answers)
    assert any(one.changed for one in reports[1].answers)
    assert not any(one.changed for one in reports[2].answers)
    assert reports[0].answers[0].prompt == "w0 w1"


@pytest.mark.slow
def test_a_report_without_answers_is_still_read_and_built_on(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    spec = EvalSpec(data=str(write_questions(tmp_path / "q.jsonl")), max_new_tokens=4)
    stages = ({"kind": "magnitude"}, {"kind": "depth"})
    (made,) = run(make_spec(inputs, stages[0], evaluate=spec), tmp_path / "out", silent)
    older = json.loads(made.model_dump_json())
    del older["answers"]
    assert StageReport.model_validate(older).answers == ()
    (Path(made.model).parent / "report.json").write_text(json.dumps(older), "utf-8")
    kept, depth = run(make_spec(inputs, *stages, evaluate=spec), tmp_path / "out", silent)
    assert (kept.answers, depth.answers) == ((), ())
