"""A stage's export, loaded again and held against the model in memory."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from tests.trainer.compress.chains import HEAL, Events, inputs, make_spec
from tests.trainer.compress.models import logits, saved, tiny_llama, token_rows
from tests.trainer.compress.world import make_llama
from trainer.compress import making
from trainer.compress.chain import run
from trainer.compress.fake_quant import Quantized, as_saved, export, prepare
from trainer.compress.outcome import Outcome
from trainer.compress.qat import Workplace
from trainer.compress.reloading import ExportDiffers, check_saved, speak
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import QuantizeFinetune, SequenceLevel
from trainer.training import train

__all__ = ["inputs"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules"),
]
QAF = {"kind": "qaf", "rank": 4, "group_size": 16, "training": HEAL}
STAGES: dict[str, list[dict[str, Any]]] = {
    "factors, packed": [{"kind": "svd", "parameter_ratio": 0.7}, {"kind": "ptq"}],
    "awq": [{"kind": "ptq", "scheme": "W4A16", "algorithm": "awq", "group_size": 16}],
    "fp8": [{"kind": "ptq", "scheme": "FP8", "algorithm": "rtn"}],
    "cut": [{"kind": "depth"}, {"kind": "width", "hidden": 48}, {"kind": "tensor"}],
    "qat": [{"kind": "qat", "scheme": "W8A8", "training": HEAL}],
    "peqa": [{"kind": "qaf", "group_size": 16, "training": HEAL}],
    "qlora": [{**QAF, "method": "qlora"}],
    "qlora, 8 bits": [{**QAF, "method": "qlora", "scheme": "W8A8", "group_size": 128}],
    "qa_lora": [{**QAF, "method": "qa_lora"}],
}


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_saves_is_the_model_that_it_made(
    name: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    for report in run(make_spec(inputs, *STAGES[name]), tmp_path, silent):
        found = report.details["reloaded"]
        assert 0 <= found["mean_logprob_difference"] <= found["largest_logprob_difference"] < 1e-3
        assert found["tokens"] > 8
        trained = report.kind in ("qat", "qaf")  # in an fp32 master
        assert found["dtype"] == ("float32" if trained else "bfloat16")


def test_a_heal_holds_its_files_against_the_model_in_training(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, {"kind": "depth", "heal": HEAL}), tmp_path, silent)
    assert report.heal is not None
    assert report.heal.reloaded is not None
    assert report.heal.reloaded["tokens"] > 8
    assert report.heal.reloaded["largest_logprob_difference"] < 1e-3


@pytest.mark.parametrize("scheme", [None, "W4A16"])
def test_a_training_holds_its_files_against_the_model_in_training(
    scheme: str | None, inputs: dict[str, str], tmp_path: Path
) -> None:
    quantize = None if scheme is None else {"scheme": scheme, "group_size": 16}
    trained = train(training_spec(inputs, quantize=quantize), tmp_path / "trained", silent)
    found = json.loads((trained / "retort.json").read_text("utf-8"))["reloaded"]
    assert found["tokens"] > 8
    assert found["largest_logprob_difference"] < 1e-3
    assert found["dtype"] == ("bfloat16" if scheme is None else "float32")


def test_a_student_that_answers_otherwise_is_not_kept(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are: the next run has nothing to train again."""
    saves = LlamaForCausalLM.save_pretrained

    def breaks(model: LlamaForCausalLM, path: Path, **given: Any) -> None:
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
        saves(model, path, **given)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", breaks)
    with pytest.raises(ExportDiffers, match="what trained saved does not answer"):
        train(training_spec(inputs), tmp_path / "trained", silent)
    assert [path.name for path in (tmp_path / "trained").iterdir()] == ["checkpoints"]
    monkeypatch.undo()
    train(training_spec(inputs), tmp_path / "trained", events := Events())
    details = [fields["detail"] for event, fields in events if event == "phase"]
    assert any("resumed from" in detail for detail in details)


def training_spec(inputs: dict[str, str], **fields: Any) -> SequenceLevel:
    optimization = {**HEAL["optimization"], "max_length": 64}
    return SequenceLevel(
        method="sequence_level",
        student=inputs["model"],
        dataset=inputs["dataset"],
        optimization=optimization,
        **fields,
    )


def test_an_export_that_answers_otherwise_is_not_kept(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(stage: object, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
        def save(path: Path) -> None:
            with torch.no_grad():
                model.model.layers[1].mlp.down_proj.weight.mul_(1.5)
            model.save_pretrained(path)

        return Outcome(model, save=save)

    monkeypatch.setitem(making.STAGES, "magnitude", making._alone(breaks))
    spec = make_spec(inputs, {"kind": "depth"}, {"kind": "magnitude"})
    with pytest.raises(
        ExportDiffers, match=r"what stage-1-magnitude saved does not answer.*0\.01 is the limit"
    ):
        run(spec, tmp_path, events := Events())
    assert [fields["kind"] for event, fields in events if event == "stage"] == ["depth"]
    assert not list((tmp_path / "stage-1-magnitude").iterdir())
    monkeypatch.undo()
    run(spec, tmp_path, events := Events())
    assert events.worked_on() == ["magnitude"]


@pytest.mark.parametrize(("spoilt", "kept"), [("both", True), ("saved", False)])
def test_what_is_no_number_matches_what_is_none(spoilt: str, kept: bool, tmp_path: Path) -> None:
    """The gate tells of a model that is none; one that became so was saved wrongly."""
    model, rows = tiny_llama(), token_rows(4)
    said = speak(model, rows)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    place = saved(model, tmp_path / "m")
    if kept:
        said = speak(model, rows)
        assert check_saved(said, place, rows)["mean_logprob_difference"] == 0
    else:
        with pytest.raises(ExportDiffers, match="nan nats"):
            check_saved(said, place, rows)
    assert place.exists() is kept


def test_an_export_that_does_not_load_is_not_kept(tmp_path: Path) -> None:
    model, rows = tiny_llama(), token_rows(4)
    said, place = speak(model, rows), saved(model, tmp_path / "m")
    (place / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="can't be loaded"):
        check_saved(said, place, rows)
    assert not place.exists()


@pytest.mark.parametrize(
    ("scheme", "train"),
    [
        ("W4A16", "adapters"),
        ("W8A8", "adapters"),
        ("FP8", "adapters"),
        ("W4A16", "pooled_adapters"),
    ],
)
def test_merged_adapters_in_memory_compute_what_is_saved(
    scheme: Any, train: Any, tmp_path: Path
) -> None:
    model, quantized = make_llama(), Quantized(scheme, 16, train, rank=4)
    prepare(model, quantized)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    merged = as_saved(model, quantized)
    export(model, quantized, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert torch.allclose(logits(merged), logits(loaded), atol=1e-3)
    assert not torch.allclose(logits(merged), logits(model), atol=1e-2)


def test_what_merging_loses_is_measured_beside_the_stage(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's folder for temporary files may be small; nothing is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    source = Path(inputs["model"])
    training = tmp_path / "training"
    place = Workplace(source, source, Path(inputs["dataset"]), training, 1, silent)
    stage = QuantizeFinetune(**{**QAF, "method": "qlora"})
    assert making.TRAINED["qaf"](stage, place).details["merge"]["kl"] > 0
    assert [path.name for path in training.iterdir()] == ["checkpoints"]
