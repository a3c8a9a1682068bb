"""QAT and QAF as stages of the chain: real training, tiny, and its export."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.families import make
from tests.trainer.compress.models import counted, logits
from tests.trainer.compress.test_fake_quant import logprobs, step
from tests.trainer.compress.world import write_dataset, write_model
from trainer.compress import qat
from trainer.compress.chain import run
from trainer.compress.fake_quant import prepare
from trainer.compress.forecast import forecast
from trainer.compress.making import TRAINED
from trainer.compress.qaf import quantized_by
from trainer.compress.qat import Workplace
from trainer.compress.report import StageReport
from trainer.compress.size import tensor_bytes
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model, read_config
from trainer.spec import CompressSpec, QuantizeFinetune, QuantizeTrain

pytestmark = pytest.mark.slow

TRAINING = {
    "method": "forward_kl",
    "optimization": {
        "max_steps": 12, "batch_size": 8, "threads": 1, "learning_rate": 2e-3, "checkpoint_steps": 6
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "model": str(write_model(folder / "start")),
        "dataset": str(write_dataset(folder / "data")),
    }


def make_spec(inputs: dict[str, str], **fields: Any) -> CompressSpec:
    stage = {"kind": "qat", "group_size": 32, "training": TRAINING, **fields}
    return CompressSpec(**inputs, threads=1, serve_check=False, stages=(stage,))


METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "qat": ({"kind": "qat"}, "weights"),
    "peqa": ({"kind": "qaf"}, "scales"),
    "qlora": ({"kind": "qaf", "method": "qlora", "rank": 4}, "adapters"),
    "qa_lora": ({"kind": "qaf", "method": "qa_lora", "rank": 4}, "pooled_adapters"),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_was_trained_is_what_is_exported(
    name: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    fields, train = METHODS[name]
    spec = make_spec(inputs, **fields)
    (expected,) = forecast(spec, load_model(inputs["model"]))
    (report,) = run(spec, tmp_path, silent)
    assert report.passed
    assert report.details["steps"] == 12
    check_merge(name, report)
    stored = sum(tensor_bytes(Path(report.model)).values())
    assert stored == expected.expected.weight_bytes
    assert {report.details["trained"], report.details["format"]} == {train, "compressed-tensors"}
    config = json.loads((Path(report.model) / "config.json").read_text("utf-8"))
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"]) == (4, 32)
    assert config["dtype"] == "bfloat16"
    assert report.after.shape.weight_bytes < 0.7 * report.before.shape.weight_bytes
    assert report.after.shape.parameters == report.before.shape.parameters
    assert report.after.shape.nonzero == counted(load_model(report.model))[1]
    names = {path.name for path in Path(report.model).parent.iterdir()}
    assert names == {"model", "report.json"}


@pytest.mark.parametrize("name", ["qat", "peqa"])
def test_a_stage_stores_the_model_that_it_trained(
    name: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    """In bf16, on 200 prompts: number for number, where both compute in fp32."""
    stage = make_spec(inputs, **METHODS[name][0]).stages[0]
    source, data = (Path(inputs[key]) for key in ("model", "dataset"))
    made = TRAINED[stage.kind](stage, Workplace(source, source, data, tmp_path / "t", 1, silent))
    assert made.save is not None
    made.save(tmp_path / "model")
    saved = load_model(tmp_path / "model", torch.float32)
    assert torch.equal(logprobs(saved), logprobs(made.model))
    assert read_config(tmp_path / "model")["dtype"] == "bfloat16"


def check_merge(name: str, report: StageReport) -> None:
    """What merging loses is measured where anything is merged."""
    if name in ("qat", "peqa"):
        assert "merge" not in report.details
        return
    lost = report.details["merge"]
    assert 0 < lost["mean_relative_error"] <= lost["largest_relative_error"] < 0.2
    assert lost["kl"] > 0
    assert any(f"cost KL {lost['kl']:.4f}" in note for note in report.notes)
    assert lost["kl_tokens"] > 0
    assert report.details["parameters_trained"] < report.before.shape.parameters / 4


@pytest.mark.parametrize("kind", ["qat", "qaf"])
def test_a_mask_survives_it(kind: str, inputs: dict[str, str], tmp_path: Path) -> None:
    stage = {"kind": kind, "group_size": 32, "training": TRAINING}
    stages = ({"kind": "magnitude", "pattern": "2:4"}, stage)
    spec = CompressSpec(**inputs, threads=1, serve_check=False, stages=stages)
    masked, trained = (load_model(report.model) for report in run(spec, tmp_path, silent))
    for layer in (0, 2):
        before = masked.model.layers[layer].mlp.up_proj.weight
        after = trained.model.layers[layer].mlp.up_proj.weight
        assert (after[before == 0] == 0).all()
        assert not torch.equal(after, before)


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_training_on_the_grid_is_nearer_than_rounding_to_it(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (trained,) = run(make_spec(inputs), tmp_path / "qat", silent)
    (tuned,) = run(make_spec(inputs, kind="qaf"), tmp_path / "qaf", silent)
    stage = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 32}
    spec = CompressSpec(**inputs, threads=1, serve_check=False, stages=(stage,))
    (rounded,) = run(spec, tmp_path / "ptq", silent)
    kls = [report.kl_from_source or 9 for report in (trained, tuned, rounded)]
    assert max(kls[:2]) < kls[2]
    made = [logits(load_model(report.model)) for report in (trained, tuned, rounded)]
    assert not any(torch.equal(made[a], made[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_disk_that_fills_up_in_a_training_is_named(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little before it, or none left when torch fails to write a checkpoint."""

    def failing(*given: Any) -> None:
        raise RuntimeError("unexpected pos 6144 vs 6038")

    free = [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.pop(0)))
    monkeypatch.setattr(qat, "fit", failing)
    with pytest.raises(BadInput, match="too little disk space to train"):
        run(make_spec(inputs), tmp_path, silent)
    free[:] = [2**40, 0]
    with pytest.raises(BadInput, match="is full"):
        run(make_spec(inputs), tmp_path, silent)


QAF = {"kind": "qaf", "method": "qlora", "rank": 4, "group_size": 8}
CHANGES: dict[str, dict[str, Any]] = {
    "method": {"method": "qa_lora"},
    "rank": {"rank": 2},
    "alpha": {"alpha": 2},
    "initialization": {"initialization": "loftq"},
    "loftq_rounds": {"initialization": "loftq", "loftq_rounds": 1},
    "group_size": {"group_size": 4},
    "scheme": {"scheme": "W8A16", "group_size": 128},
}


def test_every_field_of_a_finetuning_matters() -> None:
    made = []
    for change in ({}, *CHANGES.values()):
        model = make("llama_untied")
        torch.manual_seed(0)
        prepare(model, quantized_by(QuantizeFinetune(**{**QAF, **change})))
        step(model)
        made.append(logits(model))
    for index, one in enumerate(made):
        assert not any(torch.equal(one, other) for other in made[index + 1 :])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            ({**QAF, "rank": 32},),
            r"stages\[0\].rank: 32 is no less than the 32 of self_attn.k_proj",
        ),
        (({"kind": "wanda"}, QAF), r"stages\[1\].method: qlora would fill the zeros"),
        (({**QAF, "heal": TRAINING},), r"\(qaf\) can't be healed"),
    ],
)
def test_adapters_that_make_no_sense_are_refused_before_anything_runs(
    stages: tuple[dict[str, Any], ...], message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    sized = tuple({**s, "group_size": 32} if s["kind"] == "qaf" else s for s in stages)
    spec = CompressSpec(**inputs, threads=1, serve_check=False, stages=sized)
    with pytest.raises(BadInput, match=message):
        run(spec, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 4}, "rank and alpha are read by"),
        ({"method": "qa_lora", "initialization": "loftq"}, "initialization is read by"),
        ({"method": "qlora", "loftq_rounds": 2}, "loftq_rounds is read by"),
        ({"method": "qa_lora", "scheme": "W8A8"}, "use scheme W4A16"),
        ({"scheme": "FP8", "group_size": 32}, "scheme: W4A16 alone"),
    ],
)
def test_fields_that_nothing_reads_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QuantizeFinetune(kind="qaf", **fields)


class InterruptedTrainingError(Exception):
    pass


def interrupt(event: str, fields: dict[str, Any]) -> None:
    """Ends a run at its first checkpoint."""
    if event == "phase" and fields["name"] == "checkpoint":
        raise InterruptedTrainingError


@pytest.mark.parametrize(
    ("then", "told"),
    [({}, "resumed from checkpoint-6"), ({"group_size": 16}, "checkpoint-6 is passed over")],
)
def test_an_interrupted_training_goes_on_from_its_checkpoint_of_the_same_grid(
    then: dict[str, Any], told: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(InterruptedTrainingError):
        run(make_spec(inputs), tmp_path, interrupt)
    again = make_spec(inputs, **then)
    run(again, tmp_path, lambda event, fields: said.append(str(fields.get("detail"))))
    assert sum(told in detail for detail in said) == 1
    assert any("resumed" in detail for detail in said) is not bool(then)
    shutil.rmtree(tmp_path)


def test_schemes_matter_and_contradictions_are_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    stage = {"scheme": "W8A8", "group_size": 128}
    (report,) = run(make_spec(inputs, **stage), tmp_path, silent)
    assert report.details["scheme"] == "W8A8"
    with pytest.raises(ValidationError, match="scheme: W4A16 alone"):
        QuantizeTrain(kind="qat", scheme="W8A8", group_size=64)
