"""No dead option: for each field of each stage another value changes what is made, or the plan."""

import hashlib
import json
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import LlamaForCausalLM, PreTrainedModel

from tests.trainer.compress.models import token_rows
from tests.trainer.compress.world import make_llama
from tests.trainer.conftest import save_model
from trainer.compress.fake_quant import Quantized, prepare
from trainer.compress.gate import find_failures
from trainer.compress.heal import train_spec
from trainer.compress.making import STAGES
from trainer.compress.measured import spread
from trainer.compress.moments import collect
from trainer.compress.points import lay_out
from trainer.compress.qaf import quantized_by
from trainer.compress.report import ModelFacts, Shape
from trainer.loading import load_model
from trainer.spec import CompressSpec, StageSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules"),
]
Fields = dict[str, Any]
SWEEP: tuple[Fields, Fields] = ({}, {"sweep": {"ratios": (0.2, 0.3)}})
MASK: dict[str, tuple[Fields, Fields]] = {
    "sparsity": ({}, {"sparsity": 0.7}),
    "layer_sparsities": ({}, {"layer_sparsities": (0.4, 0.5, 0.6)}),
    "pattern": ({}, {"pattern": "2:4"}),
    "sweep": SWEEP,
}
SVD_BY_LOSS = {"ranks": "by_loss"}
CP = {"form": "cp", "starts": 2, "parameter_ratio": 0.1}
ADAPTERS = {"method": "qlora", "rank": 4, "group_size": 8}
LONGER = {"optimization": {"max_steps": 7}}
CHANGES: dict[str, dict[str, tuple[Fields, Fields]]] = {
    "magnitude": MASK,
    "wanda": MASK,
    "sparsegpt": {**MASK, "damping": ({}, {"damping": 1.0}), "block": ({}, {"block": 8})},
    "heal": {},
    "evaluate": {},
    "depth": {
        "layers": ({}, {"layers": 2}),
        "importance": ({}, {"importance": "perplexity"}),
    },
    "width": {
        "feed_forward": ({"hidden": 48}, {"feed_forward": 64}),
        "key_value_groups": ({"feed_forward": 64}, {"key_value_groups": 1}),
        "heads_per_group": ({"feed_forward": 64}, {"heads_per_group": 1}),
        "hidden": ({"feed_forward": 64}, {"hidden": 48}),
        "importance": ({"feed_forward": 64}, {"importance": "taylor"}),
    },
    "svd": {
        "parameter_ratio": ({}, {"parameter_ratio": 0.4}),
        "sweep": SWEEP,
        "max_bytes": ({}, {"max_bytes": 250_000}),
        "max_relative_error": (SVD_BY_LOSS, {"max_relative_error": 0.5}),
        "max_loss_increase": (SVD_BY_LOSS, {"max_loss_increase": 2.0}),
        "scaling": ({}, {"scaling": "none"}),
        "alpha": ({"scaling": "activation"}, {"alpha": 1.0}),
        "ranks": ({}, SVD_BY_LOSS),
        "rank_multiple": ({}, {"rank_multiple": 16}),
        "targets": ({}, {"targets": ("up_proj",)}),
    },
    "tensor": {
        "form": ({"parameter_ratio": 0.1}, {"form": "cp"}),
        "parameter_ratio": ({}, {"parameter_ratio": 0.3}),
        "sweep": SWEEP,
        "starts": (CP, {"starts": 1}),
        "seed": ({**CP, "starts": 1}, {"seed": 5}),
    },
    "ptq": {
        "scheme": ({}, {"scheme": "W8A16"}),
        "algorithm": ({}, {"algorithm": "rtn"}),
        "group_size": ({"scheme": "W4A16", "group_size": 32}, {"group_size": 16}),
    },
    "qat": {
        "scheme": ({"scheme": "W8A16"}, {"scheme": "W8A8"}),
        "group_size": ({"group_size": 32}, {"group_size": 16}),
        "training": ({"group_size": 32}, {"training": LONGER}),
    },
    "qaf": {
        "method": (ADAPTERS, {"method": "qa_lora"}),
        "scheme": ({"scheme": "FP8"}, {"scheme": "W8A16"}),
        "group_size": ({"group_size": 32}, {"group_size": 16}),
        "rank": (ADAPTERS, {"rank": 2}),
        "alpha": (ADAPTERS, {"alpha": 2}),
        "initialization": (ADAPTERS, {"initialization": "loftq"}),
        "loftq_rounds": ({**ADAPTERS, "initialization": "loftq"}, {"loftq_rounds": 1}),
        "training": (ADAPTERS, {"training": LONGER}),
    },
}
"""Kind -> field -> (what is asked before, what is changed)."""
COMMON = {"kind", "on", "gate", "heal", "calibration_rows"}
"""Of every stage; below."""
MEMBERS = typing.get_args(typing.get_args(StageSpec)[0])
CASES = [(kind, field) for kind, fields in CHANGES.items() for field in fields]


def test_every_field_of_every_stage_is_here() -> None:
    fields = {
        typing.get_args(member.model_fields["kind"].annotation)[0]: set(member.model_fields)
        for member in MEMBERS
    }
    assert {kind: set(changed) | COMMON for kind, changed in CHANGES.items()} == fields


@pytest.mark.parametrize(("kind", "field"), CASES)
def test_another_value_makes_another_model(kind: str, field: str, tmp_path: Path) -> None:
    before, change = CHANGES[kind][field]
    assert field in change
    made = [
        fingerprint({"kind": kind, **fields}, tmp_path / name)
        for name, fields in (("before", before), ("after", {**before, **change}))
    ]
    assert made[0] != made[1]
    if kind in ("tensor", "qaf"):  # those with chance in them
        assert fingerprint({"kind": kind, **before}, tmp_path / "again") == made[0]


def fingerprint(given: Fields, place: Path) -> str:
    """Of all that a stage leads to: the models of its points, or how its training would run."""
    made = hashlib.sha256()
    for point in lay_out(CompressSpec(stages=(given,))):
        made.update(_of_one(point.stage, place).encode())
    return made.hexdigest()


def fresh() -> LlamaForCausalLM:
    """Four heads of 16 in two groups."""
    return make_llama(num_attention_heads=4, num_key_value_heads=2, head_dim=16)


def _of_one(stage: StageSpec, place: Path) -> str:
    if stage.kind in ("qat", "qaf"):
        model = fresh()
        torch.manual_seed(0)
        training = train_spec(stage.training, place, place, place)
        optimization = training.optimization.model_dump_json()
        return optimization + _digest(_in_training_linears(stage, model))
    place.mkdir(exist_ok=True)
    save_model(place, fresh())
    outcome = STAGES[stage.kind](stage, load_model(place), token_rows(10), collect)
    return json.dumps(outcome.details, default=str) + _digest(outcome.model)


def _in_training_linears(stage: Any, model: PreTrainedModel) -> PreTrainedModel:
    quantized = Quantized(stage.scheme, stage.group_size)
    if stage.kind == "qaf":
        quantized = quantized_by(stage)
    prepare(model, quantized)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                parameter.add_(0.1)  # adapters begin without effect
    return model


def _digest(model: PreTrainedModel) -> str:
    """Of what it computes, and of what it holds."""
    made = hashlib.sha256()
    ids = torch.arange(4, 16)[None]
    with torch.inference_mode():
        made.update(model(input_ids=ids, use_cache=False).logits.float().numpy().tobytes())
    return made.hexdigest() + str(sum(p.numel() for p in model.parameters()))


def test_what_all_stages_share_matters() -> None:
    """Where a stage stands, what it may lose, how many rows it sees; heals: test_heal.py."""
    parsed = TypeAdapter[StageSpec](StageSpec)
    chain = [{"kind": "depth"}, {"kind": "magnitude"}]
    branch = [{"kind": "depth"}, {"kind": "magnitude", "on": "start"}]
    assert [lay_out(CompressSpec(stages=tuple(s)))[1].before for s in (chain, branch)] == [0, None]
    rows = token_rows(12)
    few, many = (parsed.validate_python({"kind": "wanda", "calibration_rows": n}) for n in (3, 9))
    assert [len(spread(rows, stage.calibration_rows)) for stage in (few, many)] == [3, 9]
    shape = Shape(parameters=1, nonzero=1, weight_bytes=1, layers=1)
    facts = ModelFacts(path="m", shape=shape)
    loose, tight = (
        parsed.validate_python({"kind": "wanda", "gate": {"max_kl": kl}}) for kl in (1.0, 0.1)
    )
    found = [find_failures(stage.gate, facts, facts, 0.5) for stage in (loose, tight)]
    assert [len(failures) for failures in found] == [0, 1]
