"""What the models of a chain answer to the dataset's own rows, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.compress.chains import Events, inputs, make_spec
from tests.trainer.compress.world import write_judged, write_questions
from trainer.assess import assess
from trainer.compress import answers
from trainer.compress.answers import RESAMPLES
from trainer.compress.chain import run
from trainer.compress.report import RowAnswers, StageReport
from trainer.events import silent
from trainer.generation import Answers, answer_greedily
from trainer.loading import load_model
from trainer.memory import tensor_bytes
from trainer.spec import DatasetEval, EvalSpec

pytestmark = pytest.mark.slow

__all__ = ["inputs"]


@pytest.fixture
def judged(inputs: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**inputs, "dataset": str(write_judged(tmp_path / "judged", "regex"))}


def by_assess(model: str, dataset: str, found: RowAnswers) -> dict[str, Any]:
    """The same figures of `retort evaluate`."""
    spec = DatasetEval(
        dataset=dataset,
        split="validation",
        max_new_tokens=found.max_new_tokens,
        resamples=RESAMPLES,
        threads=1,
    )
    return assess(model, spec, silent).model_dump(
        include={"exact_match", "rouge_l", "accuracy", "verifier", "cut", "rows", "uncompared"}
    )


def test_every_model_is_judged_as_retort_evaluate_does_and_asked_once(
    judged: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def count(model: Any, prompts: Any, *rest: Any) -> Answers:
        asked.append(len(prompts))
        return answer_greedily(model, prompts, *rest)

    monkeypatch.setattr(answers, "answer_greedily", count)
    stages = ({"kind": "magnitude", "sparsity": 0.4}, {"kind": "depth"})
    first, second = run(make_spec(judged, *stages), tmp_path / "out", silent)
    assert asked == [10, 10, 10]
    assert second.before == first.after
    rouges = []
    for facts in (first.before, first.after, second.after):
        found = facts.row_answers
        assert found is not None
        assert found.accuracy is not None
        figures = by_assess(facts.path, judged["dataset"], found)
        assert found.model_dump(include=set(figures)) == figures
        assert found.accuracy.low < found.accuracy.value < found.accuracy.high
        assert (found.rows, found.verifier) == (10, "regex")
        assert found.prefill_tokens_per_s > 0
        assert (found.decode_tokens_per_s or 0) > 0
        # of the model, not of the process that keeps the chain
        assert tensor_bytes(load_model(facts.path)) <= found.peak_memory_bytes < 10**8
        rouges.append(found.rouge_l)
    assert rouges[0] != rouges[1]
    without = second.model_copy(update={"answers": ()})
    stored = StageReport.model_validate_json(second.model_dump_json())
    assert stored.model_copy(update={"answers": ()}) == without


def test_a_few_answers_stand_side_by_side_where_nothing_else_was_asked(
    judged: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(judged, {"kind": "depth"}), tmp_path / "out", silent)
    assert [one.id for one in report.answers] == ["r40", "r42", "r44", "r46", "r48"]
    assert report.answers[0].gold.endswith("The answer is 0 .")
    assert any(one.changed for one in report.answers)
    questions = EvalSpec(data=str(write_questions(tmp_path / "q.jsonl", 4)), max_new_tokens=4)
    (asked,) = run(make_spec(judged, {"kind": "depth"}, evaluate=questions), tmp_path, silent)
    assert [one.id for one in asked.answers] == ["q0", "q1", "q2", "q3"]
    assert asked.after.row_answers is not None


def test_how_many_rows_answer_is_asked_for(judged: dict[str, str], tmp_path: Path) -> None:
    """As many as before are found finished; another number measures anew."""
    stage = {"kind": "magnitude"}
    run(make_spec(judged, stage), tmp_path, silent)
    run(make_spec(judged, stage, answer_rows=64), tmp_path, events := Events())
    assert events.worked_on() == []
    (few,) = run(make_spec(judged, stage, answer_rows=3), tmp_path, events := Events())
    assert events.worked_on() == ["magnitude"]
    assert few.after.row_answers is not None
    assert few.after.row_answers.rows == 3
    (none,) = run(make_spec(judged, stage, answer_rows=0), tmp_path, silent)
    assert (none.after.row_answers, none.answers) == (None, ())


def test_reports_of_earlier_versions_are_finished_all_the_same(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    stages = ({"kind": "magnitude"}, {"kind": "depth"})
    run(make_spec(inputs, stages[0]), tmp_path, silent)
    path = tmp_path / "stage-0-magnitude" / "report.json"
    older = json.loads(path.read_text("utf-8"))
    older["answers"] = []
    for side in ("before", "after"):
        del older[side]["row_answers"], older[side]["from_teacher"]
    path.write_text(json.dumps(older), "utf-8")
    first, second = run(make_spec(inputs, *stages), tmp_path, events := Events())
    assert events.worked_on() == ["depth"]
    assert (first.after.row_answers, second.before.row_answers) == (None, None)
    assert second.after.row_answers is not None
    assert second.after.row_answers.why == "no row has an answer to compare with"


def test_a_function_that_the_dataset_names_is_not_run_and_stops_nothing(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    verify = {"kind": "python", "function": "os:getcwd"}
    dataset = str(write_judged(tmp_path / "judged", verify))
    spec = make_spec({**inputs, "dataset": dataset}, {"kind": "magnitude"})
    (report,) = run(spec, tmp_path / "out", events := Events())
    found = report.after.row_answers
    assert found is not None
    assert (found.accuracy, found.verifier) == (None, None)
    assert "Python verifiers are not allowed here" in found.why
    warnings = [fields["detail"] for event, fields in events if event == "warning"]
    assert warnings == [f"no accuracy on the dataset's rows: {found.why}"]
