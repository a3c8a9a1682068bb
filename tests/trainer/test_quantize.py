"""Quantization-aware training within any training: what is trained is what is saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from prompts.record import Record
from service.spec import RecipeJob
from tests.trainer.conftest import make_records
from tests.trainer.methods.made import icl_records, spec_of
from tests.trainer.runs import Heard, Killed, dying_after
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.recipe import Recipe
from trainer.spec import TrainSpec
from trainer.training import train_on

pytestmark = pytest.mark.slow

FEW = {"epochs": 1, "checkpoint_steps": 2}
W4 = {"scheme": "W4A16", "group_size": 16}
HIDDEN = {"kind": "hidden", "distance": "mse", "weight": 1.0}
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "answers": ("sequence_level", {}, W4),
    "divergence and features": ("kd", {"features": [HIDDEN]}, {"scheme": "W8A8"}),
    "own answers": ("gkd", {"max_new_tokens": 6}, {"scheme": "W8A16"}),
    "policy gradient": ("minillm", {"max_new_tokens": 6}, W4),
    "in context": ("meta_ict", {}, {"scheme": "FP8"}),
}


def trained(
    spec: TrainSpec, out: Path, records: list[Record] | None = None, emit: Any = silent
) -> nn.Module:
    """The model as it computed in its last step, after a run of 4 steps."""
    held: list[nn.Module] = []
    rows = make_records(16) if records is None else records
    train_on(spec, rows, rows[:4], out, emit, held.append)
    return held[-1].eval()


@torch.inference_mode()
def logprobs(model: nn.Module, prompts: int = 200) -> Tensor:
    """[prompts, 12, V] of random prompts."""
    ids = torch.randint(4, 61, (prompts, 12), generator=torch.Generator().manual_seed(0))
    made: Tensor = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    return made


@pytest.mark.parametrize("name", RUNS)
def test_the_saved_student_is_the_one_that_was_trained(name: str, tmp_path: Path) -> None:
    """On 200 prompts, log-probabilities to 1e-2: any objective, every scheme, both dtypes."""
    method, fields, quantize = RUNS[name]
    spec = spec_of(tmp_path, method, optimization=FEW, quantize=quantize, **fields)
    rows = icl_records(16) if method == "meta_ict" else None
    if name == "answers":
        load_model(spec.student, torch.bfloat16).save_pretrained(spec.student)
    model = trained(spec, tmp_path / "out", rows)
    expected, directory = logprobs(model), tmp_path / "out/model"
    saved = logprobs(load_model(directory, torch.float32))  # as it was trained
    assert float((saved - expected).abs().max()) < 1e-2
    assert float((logprobs(load_model(spec.student)) - expected).abs().max()) > 0.1
    config = json.loads((directory / "config.json").read_text("utf-8"))
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert weights["num_bits"] == SCHEMES[quantize["scheme"]].bits


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd", optimization=FEW, quantize=W4)
    trained(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(spec, tmp_path / "cut", emit=dying_after(1))
    heard = Heard()
    trained(spec, tmp_path / "cut", emit=heard)
    assert any("resumed from checkpoint-2" in fields["detail"] for fields in heard.of("phase"))
    names = ("whole/model/model.safetensors", "cut/model/model.safetensors")
    first, second = ((tmp_path / name).read_bytes() for name in names)
    assert first == second


def test_it_trains_through_the_rounding_and_not_before_it(tmp_path: Path) -> None:
    """Another student than the plain one, rounded after its training."""
    plain = spec_of(tmp_path, "sequence_level", optimization=FEW)
    aware = plain.model_copy(update={"quantize": spec_of_quantize(W4)})
    unrounded, through = trained(plain, tmp_path / "a"), trained(aware, tmp_path / "b")
    name = "model.layers.0.mlp.up_proj"
    first, second = (dict(m.named_parameters())[f"{name}.weight"] for m in (unrounded, through))
    grid = SCHEMES["W4A16"]
    assert not torch.equal(rtn(first.detach(), grid, 16), rtn(second.detach(), grid, 16))


def spec_of_quantize(fields: dict[str, Any]) -> Any:
    whole = {"method": "sequence_level", "student": "s", "quantize": fields}
    return TypeAdapter[TrainSpec](TrainSpec).validate_python(whole).quantize


def test_scheme_and_group_size_matter(tmp_path: Path) -> None:
    made = []
    for index, quantize in enumerate((W4, {**W4, "group_size": 32}, {"scheme": "W8A16"})):
        spec = spec_of(tmp_path, "sequence_level", optimization=FEW, quantize=quantize)
        made.append(logprobs(trained(spec, tmp_path / str(index)), 2))
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_what_makes_no_sense_is_refused() -> None:
    for fields, said in (
        ({"quantize": W4, "lora": {}}, "trains the weights that lora freezes"),
        ({"quantize": {"scheme": "W8A8", "group_size": 16}}, "read by scheme: W4A16 alone"),
        ({"quantize": {"scheme": "W2A16"}}, "quantize.scheme"),
    ):
        with pytest.raises(ValidationError, match=said):
            TypeAdapter[TrainSpec](TrainSpec).validate_python(
                {"method": "sequence_level", "student": "s", **fields}
            )


def test_a_group_size_that_does_not_divide_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    heard = Heard()
    spec = spec_of(tmp_path, "sequence_level", quantize={"group_size": 24})
    with pytest.raises(BadInput, match="group_size 24 doesn't divide the 32 inputs"):
        trained(spec, tmp_path / "out", emit=heard)
    assert not heard.of("step")


@pytest.mark.parametrize("kind", [Recipe, RecipeJob])
def test_stages_on_a_packed_student_are_refused(kind: type[Recipe] | type[RecipeJob]) -> None:
    train = {"method": "sequence_level", "student": "s", "dataset": "d", "quantize": W4}
    compress: dict[str, Any] = {"stages": [{"kind": "magnitude"}]}
    recipe = {"kind": "recipe", "train": train, "compress": compress}
    with pytest.raises(ValidationError, match="packed weights, which no stage can change"):
        kind.model_validate(recipe)
    named = {**recipe, "compress": {**compress, "model": "other"}}
    assert kind.model_validate(named).compress is not None
