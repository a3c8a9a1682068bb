"""The card beside a stage's model."""

from pathlib import Path

import pytest

from tests.trainer.compress.chains import HEAL, inputs, make_spec
from tests.trainer.compress.world import write_judged
from tests.trainer.report.made_up import SERVING
from trainer.compress.card import card
from trainer.compress.chain import run
from trainer.compress.gate import FAILED
from trainer.compress.report import ServingComparison
from trainer.compress.settings import settings
from trainer.events import silent
from trainer.spec import CompressSpec

__all__ = ["inputs"]


def test_it_says_why_a_gate_was_not_passed_and_names_no_path(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, {"kind": "magnitude"}), tmp_path, silent)
    log = f"{FAILED}: {tmp_path}/vllm.log ends with: OutOfMemory"
    why = "Mean accuracy fell from 0.9 to 0.1, by 0.8; max_accuracy_drop is 0.2."
    lost = {"passed": False, "failures": (why, log), "serving": None, "serving_note": log}
    said = card(report.model_copy(update=lost))
    assert f"- {why}" in said
    assert f"- vLLM: {FAILED}." in said
    assert str(tmp_path) not in said


def test_it_names_the_first_model_and_every_stage_since(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    stages = [
        {"kind": "depth", "heal": HEAL},
        {"kind": "magnitude", "on": "start"},
        {"kind": "svd", "parameter_ratio": 0.7},
        {"kind": "evaluate"},
    ]
    run(make_spec(inputs, *stages), tmp_path, silent)
    last = (tmp_path / "stage-3-evaluate" / "model" / "README.md").read_text("utf-8")
    assert "# start, magnitude + svd\n" in last
    assert "Made by Retort from start:\n\n" in last
    assert "1. magnitude: sparsity 0.5\n2. svd: parameter_ratio 0.7\n3. evaluate\n" in last
    assert "depth" not in last  # a branch of its own
    assert str(tmp_path) not in last
    first = (tmp_path / "stage-0-depth" / "model" / "README.md").read_text("utf-8")
    assert "# start, depth\n" in first
    assert "1. depth: layers 1; healed by 2 steps of forward_kl\n" in first


def test_it_has_the_measured_figures_with_their_intervals(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, {"kind": "magnitude"}), tmp_path, silent)
    perplexity, found = report.after.perplexity, report.after.from_start
    assert perplexity is not None
    assert found is not None
    assert found.kl is not None
    lines = {row.split("|")[1].strip(): row for row in card(report).splitlines() if "|" in row}
    assert f"{perplexity.value:.4g} ({perplexity.low:.4g} to" in lines["perplexity"]
    kl = lines["KL from the first model, nats per token"]
    assert kl.startswith("| KL from the first model, nats per token | 0.0000 (0.0000 to 0.0000) |")
    assert f"| {found.kl.value:.4f} ({found.kl.low:.4f} to {found.kl.high:.4f}) |" in kl
    assert "| 100.0% (100.0% to 100.0%) |" in lines["likeliest token is the first model's"]
    assert f"over {report.kl_tokens} completion tokens of validation rows" in card(report)
    facts = {"from_start": None, "perplexity": None}  # as older versions left it
    older = {"before": report.before, "after": report.after}
    older = {side: one.model_copy(update=facts) for side, one in older.items()}
    said = card(report.model_copy(update=older))
    assert f"nats per token | 0.0000 | {report.after.kl_from_start:.4f} |" in said
    assert "perplexity |" not in said


def test_it_has_answers_distance_from_the_teacher_and_costs(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Whatever was measured, before and after; what older reports lack has no line."""
    data = str(write_judged(tmp_path / "data", "regex"))
    given = {**inputs, "dataset": data, "teacher": inputs["model"]}
    (report,) = run(make_spec(given, {"kind": "magnitude"}), tmp_path / "out", silent)
    rows, distance = report.after.row_answers, report.after.from_teacher
    assert rows is not None
    assert rows.accuracy is not None
    assert distance is not None
    assert distance.kl is not None
    said = card(report.model_copy(update={"serving": SERVED}))
    lines = {
        row.split("|")[1].strip(): row.split("|")[3] for row in said.splitlines() if "|" in row
    }
    for name, figure, form in (
        ("answers equal to the row's", rows.exact_match, ".1%"),
        ("ROUGE-L of answers", rows.rouge_l, ".3f"),
        ("answers that the verifier takes (regex)", rows.accuracy, ".1%"),
        ("KL from the teacher, nats per token", distance.kl, ".4f"),
        ("likeliest token is the teacher's", distance.top1_agreement, ".1%"),
    ):
        assert figure is not None
        told = f" {figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}}) "
        assert lines[name] == told
    assert lines["prefill tokens/s in transformers"] == f" {rows.prefill_tokens_per_s:,.0f} "
    assert lines["decode tokens/s in transformers"] == f" {rows.decode_tokens_per_s:,.0f} "
    assert lines["peak memory in transformers, bytes"] == f" {rows.peak_memory_bytes:,} "
    assert "answers to prompts of 10 validation rows, greedy" in said
    assert "1,450 tokens/s, 9,000 tokens/s of prefill, 1,400 tokens/s of decode." in said
    facts = {"row_answers": None, "from_teacher": None}
    sides = {"before": report.before, "after": report.after}
    older = {side: one.model_copy(update=facts) for side, one in sides.items()}
    without = card(report.model_copy(update=older))
    assert not any(word in without for word in ("ROUGE", "teacher", "prefill", "answers"))


SERVED = ServingComparison.model_validate(
    {**SERVING, "vllm_prefill_tokens_per_s": 9000.0, "vllm_decode_tokens_per_s": 1400.0}
)


def test_what_is_only_called_model_goes_by_the_name_above_it(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, {"kind": "magnitude"}), tmp_path, silent)
    said = card(report.model_copy(update={"source": "/runs/my-student/model"}))
    assert "# my-student, magnitude\n" in said


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"kind": "magnitude", "sparsity": 0.3}, "sparsity 0.3"),
        ({"kind": "wanda", "pattern": "2:4"}, "sparsity 0.5, pattern 2:4"),
        ({"kind": "wanda", "layer_sparsities": [0.1, 0.2, 0.3]}, "layer_sparsities 0.1 0.2 0.3"),
        ({"kind": "svd"}, "parameter_ratio 0.6"),
        ({"kind": "svd", "max_bytes": 9, "ranks": "by_loss"}, "max_bytes 9, ranks by_loss"),
        ({"kind": "width", "feed_forward": 64}, "feed_forward 64"),
        ({"kind": "ptq"}, "scheme W8A8, algorithm gptq"),
        (
            {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn"},
            "scheme W4A16, algorithm rtn, group_size 128",
        ),
        ({"kind": "qaf", "method": "peqa"}, "method peqa, scheme W4A16, group_size 128"),
        ({"kind": "heal"}, ""),
    ],
)
def test_settings_are_those_that_say_what_was_done(stage: dict[str, object], words: str) -> None:
    (spec,) = CompressSpec.model_validate({"stages": [stage]}).stages
    assert settings(spec.model_dump(mode="json")) == words


def test_settings_of_another_version_are_told_as_they_stand() -> None:
    assert settings({"kind": "melt", "degrees": 3}) == "degrees 3"
