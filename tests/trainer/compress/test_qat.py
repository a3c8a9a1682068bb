"""Training on the grid as a stage of the chain: real training, tiny, and its export."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.models import logits
from tests.trainer.compress.world import write_dataset, write_model
from trainer.compress.chain import run
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import CompressSpec, QuantizeTrain

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


@pytest.mark.parametrize("train", ["weights", "scales"])
def test_what_was_trained_is_what_is_exported(
    train: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, train=train), tmp_path, silent)
    assert report.passed
    assert report.details["steps"] == 12
    assert {report.details["trained"], report.details["format"]} == {train, "compressed-tensors"}
    config = json.loads((Path(report.model) / "config.json").read_text("utf-8"))
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"]) == (4, 32)
    assert config["dtype"] == "bfloat16"
    assert report.after.shape.weight_bytes < 0.7 * report.before.shape.weight_bytes
    names = {path.name for path in Path(report.model).parent.iterdir()}
    assert names == {"model", "report.json"}


@pytest.mark.parametrize("train", ["weights", "scales"])
def test_a_mask_survives_it(train: str, inputs: dict[str, str], tmp_path: Path) -> None:
    stage = {"kind": "qat", "group_size": 32, "train": train, "training": TRAINING}
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
    stage = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 32}
    spec = CompressSpec(**inputs, threads=1, serve_check=False, stages=(stage,))
    (rounded,) = run(spec, tmp_path / "ptq", silent)
    assert (trained.kl_from_source or 9) < (rounded.kl_from_source or 0)
    one, other = (load_model(report.model) for report in (trained, rounded))
    assert not torch.equal(logits(one), logits(other))


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    class InterruptedTrainingError(Exception):
        pass

    def interrupt(event: str, fields: dict[str, Any]) -> None:
        if event == "phase" and fields["name"] == "checkpoint":
            raise InterruptedTrainingError

    said: list[str] = []
    with pytest.raises(InterruptedTrainingError):
        run(make_spec(inputs), tmp_path, interrupt)
    run(make_spec(inputs), tmp_path, lambda event, fields: said.append(str(fields.get("detail"))))
    assert any("resumed from checkpoint-6" in detail for detail in said)
    shutil.rmtree(tmp_path)


def test_schemes_matter_and_contradictions_are_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    stage = {"scheme": "W8A8", "group_size": 128}
    (report,) = run(make_spec(inputs, **stage), tmp_path, silent)
    assert report.details["scheme"] == "W8A8"
    with pytest.raises(ValidationError, match="scheme: W4A16 alone"):
        QuantizeTrain(kind="qat", scheme="W8A8", group_size=64)
