"""Which engine loads which result: the plan's word, held against vLLM and transformers."""

import itertools
import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedModel

from tests.trainer.compress.families import make
from tests.trainer.compress.models import token_rows
from tests.trainer.conftest import make_records, make_tokenizer
from trainer.compress.backend import BACKEND, name_backend
from trainer.compress.depth import remove_layers
from trainer.compress.engines import obstacles
from trainer.compress.fake_quant import Quantized, export, prepare
from trainer.compress.forecast import forecast
from trainer.compress.making import STAGES
from trainer.compress.moments import collect
from trainer.compress.qaf import quantized_by
from trainer.compress.vllm_server import find_engine
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import CompressSpec, Optimization, SequenceLevel, StageSpec
from trainer.training import train_on

pytestmark = pytest.mark.slow

IDS = [5, 9, 14, 20, 31, 7, 8, 40, 22, 13, 6, 17]
LIMIT = 0.05
"""Nats, as in the serving check."""
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 128,
    "intermediate_size": 192,
    "head_dim": 32,
    "initializer_range": 0.05,
    "query_pre_attn_scalar": 32,
}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")
NARROW = {"kind": "width", "feed_forward": 160, "key_value_groups": 1, "hidden": 96}
SVD = {"kind": "svd", "parameter_ratio": 0.6, "rank_multiple": 32}
FOUR = {"kind": "qat", "scheme": "W4A16", "group_size": 32}
EIGHT = {"kind": "qat", "scheme": "W8A8"}
FLOAT = {"kind": "qat", "scheme": "FP8"}
DEPTH = {"kind": "depth"}
MADE: dict[str, list[dict[str, Any]]] = {
    # factors first: vLLM fuses what it saw unfused of a class, but not the other way round
    "factors": [SVD],
    "narrow factors": [NARROW, {**SVD, "parameter_ratio": 0.9}],
    "whole": [],
    "narrow": [NARROW],
    "depth": [DEPTH],
}
ROUNDED: dict[str, list[dict[str, Any]]] = {
    "as it is": [],
    "4 bits": [FOUR],
    "8 bits": [EIGHT],
    "fp8": [FLOAT],
    "16-bit activations": [{"kind": "qat", "scheme": "W8A16"}],
}
"""Of each family, each of what is made of it is stored in each of these."""
OF_ONE: dict[str, list[dict[str, Any]]] = {
    **{
        f"{name}, {rounded}": [stage, *ROUNDED[rounded]]
        for name, stage in {
            "heads of each group": {"kind": "width", "heads_per_group": 1},
            "mask": {"kind": "wanda", "pattern": "2:4"},
            "tensor": {"kind": "tensor", "parameter_ratio": 0.3},
        }.items()
        for rounded in ROUNDED
    },
    "odd factors, 8 bits": [{"kind": "svd", "parameter_ratio": 0.5}, EIGHT],
    "peqa": [{"kind": "qaf", "group_size": 32}],
    "qa_lora": [{"kind": "qaf", "method": "qa_lora", "group_size": 32, "rank": 4}],
    "odd factors, 4 bits": [
        {**SVD, "parameter_ratio": 0.75, "rank_multiple": 16},
        {**FOUR, "group_size": 16},
    ],
}
"""What no family has a part in."""
WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
FOUR_LAYERS = {**WINDOWS, "num_hidden_layers": 4}
OTHERS: list[tuple[str, dict[str, Any], list[dict[str, Any]], torch.dtype]] = [
    ("heads of 16", {"head_dim": 16}, [DEPTH], torch.bfloat16),
    ("4 bits in fp32", {}, [FOUR], torch.float32),
]
REFUSALS = {
    "takes head sizes": "Unsupported CPU attention configuration: head_dim=",
    "no kernel for 8-bit weights alone": "Unsupported quant type uint8b128",
    "in 16-bit models alone": "not implemented for 'Float'",
    "takes 4-bit linears of multiples of 32": "supported sizes are multiples of 32",
}
"""The plan's reasons, and what vLLM says of each."""


@dataclass(frozen=True)
class Case:
    """One result, on disk."""

    name: str
    directory: Path
    dtype: str
    why_not: tuple[str, ...]
    """The plan's reasons why vLLM on a CPU doesn't load it."""


def build(
    name: str, family: str, stages: Sequence[dict[str, Any]], place: Path, **given: Any
) -> Case:
    """Make the result by the stages' own methods."""
    dtype = given.pop("dtype", torch.bfloat16)
    fields = {**SHAPE, **({"num_hidden_layers": 3} if DEPTH in stages else {}), **given}
    if family == "qwen2":
        del fields["head_dim"]  # it has none: hidden / heads is 32 as well
    if family != "gemma2":
        del fields["query_pre_attn_scalar"]
    model = make(family, **fields).to(dtype)
    expected = forecast(CompressSpec(stages=tuple(stages)), model)[-1].expected
    directory = place / f"{family} {name}".replace(" ", "-").replace(",", "")
    for stage in stages:
        asked: StageSpec = TypeAdapter[StageSpec](StageSpec).validate_python(stage)
        apply(asked, model, directory)
        name_backend(directory)
        model = load_model(directory)
    return Case(f"{family}: {name}", directory, str(dtype).partition(".")[2], obstacles(expected))


def apply(stage: StageSpec, model: PreTrainedModel, directory: Path) -> None:
    """Rounded ones are written as training writes them, without the training."""
    if stage.kind in ("qat", "qaf"):
        quantized = (
            quantized_by(stage, model.dtype)
            if stage.kind == "qaf"
            else Quantized(stage.scheme, stage.group_size, stored=model.dtype)
        )
        nn.Module.to(model, torch.float32)
        prepare(model, quantized)
        export(model, quantized, directory)
        return
    STAGES[stage.kind](stage, model, token_rows(8), collect).model.save_pretrained(directory)


def ask_vllm(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """vLLM's answer to each, by directory."""
    engine = find_engine()
    assert engine is not None
    script = Path(__file__).with_name("vllm_loader.py")
    asked = [(str(case.directory), case.dtype, not case.why_not) for case in cases]
    done = subprocess.run(
        [str(engine.python), str(script), json.dumps(IDS), json.dumps(asked)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {answer["model"]: answer for answer in answers}


def in_transformers(directory: Path) -> list[float]:
    """Log-probabilities of IDS[1:], each given those before it."""
    with torch.inference_mode():
        logits = load_model(directory)(torch.tensor([IDS])).logits[0].float()
    found = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(IDS[1:])[:, None])
    return [float(one) for one in found[:, 0]]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_vllm_loads_what_the_plan_says_and_nothing_else(tmp_path: Path) -> None:
    cases = [
        build(f"{made}, {rounded}", family, [*MADE[made], *ROUNDED[rounded]], tmp_path)
        for made, family, rounded in itertools.product(MADE, FAMILIES, ROUNDED)
        if MADE[made] or ROUNDED[rounded]
    ]
    cases += [build(name, "llama", stages, tmp_path) for name, stages in OF_ONE.items()]
    for family in ("qwen2", "qwen3"):
        cases.append(build("windows in some layers", family, [DEPTH], tmp_path, **FOUR_LAYERS))
    for name, fields, stages, dtype in OTHERS:
        cases.append(build(name, "llama", stages, tmp_path, dtype=dtype, **fields))
    answers = ask_vllm(cases)
    refused = {case.name for case in cases if case.why_not}
    assert refused  # the table has both kinds
    loaded = {case.name for case in cases if "logprobs" in answers[str(case.directory)]}
    said = {case.name: answers[str(case.directory)].get("error", "") for case in cases}
    assert loaded == {case.name for case in cases} - refused, said
    differing = {}
    for case in cases:
        if case.name in loaded:
            theirs = answers[str(case.directory)]["logprobs"]
            pairs = zip(in_transformers(case.directory), theirs, strict=True)
            differing[case.name] = statistics.fmean(abs(a - b) for a, b in pairs)
    assert {name: far for name, far in differing.items() if far > LIMIT} == {}
    untold = [
        (case.name, why, said[case.name])
        for case in cases
        for why in case.why_not
        if not any(part in why and told in said[case.name] for part, told in REFUSALS.items())
    ]
    assert untold == []


def test_only_a_head_size_that_vllm_would_get_wrong_names_a_backend(tmp_path: Path) -> None:
    for family, named in (("qwen2", True), ("qwen3", False)):
        case = build("narrow", family, [NARROW], tmp_path)
        config = json.loads((case.directory / "config.json").read_text("utf-8"))
        assert (config["architectures"] == [BACKEND]) is named
        load_model(case.directory)
    case = build("narrow", "qwen2", [NARROW], tmp_path)
    make_tokenizer().save_pretrained(case.directory)
    spec = SequenceLevel(
        method="sequence_level",
        student=str(case.directory),
        dataset=None,
        optimization=Optimization(max_steps=1, batch_size=2, threads=1, max_length=64),
    )
    trained = train_on(spec, make_records(4), [], tmp_path / "trained", silent)
    config = json.loads((trained / "config.json").read_text("utf-8"))
    assert config["architectures"] == [BACKEND]  # a training that follows leaves it so
    case = build("depth", "qwen2", [DEPTH], tmp_path)
    config = json.loads((case.directory / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_layers_of_two_kinds_name_a_backend(family: str, tmp_path: Path) -> None:
    """vLLM's own would refuse them, or leave their windows out."""
    model = make(family, **FOUR_LAYERS)
    (mixed,) = forecast(CompressSpec(stages=({"kind": "magnitude"},)), model)
    assert "sliding windows in all layers or in none" in "; ".join(mixed.notes)
    (alone,) = forecast(CompressSpec(stages=({**DEPTH, "layers": 3},)), model)
    assert "sliding windows" not in "; ".join(alone.notes)
    for removed, named in (([0], True), ([0, 1], False), ([2, 3], False)):
        pruned = make(family, **FOUR_LAYERS)
        remove_layers(pruned, removed)
        pruned.save_pretrained(tmp_path)
        name_backend(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text("utf-8"))
        assert (config["architectures"] == [BACKEND]) is named
