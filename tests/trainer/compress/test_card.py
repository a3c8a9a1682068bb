"""The card beside a stage's model."""

from pathlib import Path

from tests.trainer.compress.chains import inputs, make_spec
from trainer.compress.card import card
from trainer.compress.chain import run
from trainer.compress.gate import FAILED
from trainer.events import silent

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
