"""Training on rounded weights, and an export of exactly what was trained."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from tests.trainer.compress.families import make
from tests.trainer.compress.models import VOCABULARY, logits
from trainer.compress.fake_quant import Quantized, export, prepare, restore, rounded_linears, settle
from trainer.compress.quantized_linears import (
    FakeQuantLinear,
    ScaledLinear,
    as_stored,
    straight_through,
)
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES, targets_of
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.spec import SchemeName

Train = Literal["weights", "scales"]


def test_the_gradient_goes_straight_through() -> None:
    x = torch.tensor([0.2, 1.7], requires_grad=True)
    y = straight_through(x, x.round())
    assert y.tolist() == [0.0, 2.0]
    (y * torch.tensor([3.0, -1.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, -1.0]


@pytest.mark.parametrize("name", list(SCHEMES))
def test_a_linear_computes_with_its_rounded_weights(name: SchemeName) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 6), torch.randn(3, 16)
    expected = rtn(linear.weight.detach(), SCHEMES[name], 8)
    for made in (FakeQuantLinear(linear, SCHEMES[name], 8), ScaledLinear(linear, SCHEMES[name], 8)):
        rounds = SCHEMES[name].rounds_activations
        close = torch.nn.functional.linear(x, expected, linear.bias)
        assert torch.allclose(made(x), close, atol=0.3 if rounds else 1e-5)
        assert torch.allclose(made(x), close, atol=1e-5) != rounds


def regression() -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    """A linear that is right before it is rounded, on correlated inputs."""
    torch.manual_seed(0)
    linear = nn.Linear(16, 8)
    x = torch.randn(256, 16) @ (torch.eye(16) + 0.6)
    return linear, x, linear(x).detach()


def train(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int = 150) -> float:
    """The best loss on the way: rounding makes it jump."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (module(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return min(losses)


def test_training_on_the_grid_beats_rounding_to_it() -> None:
    for kind in (FakeQuantLinear, ScaledLinear):
        linear, x, y = regression()
        module = kind(linear, SCHEMES["W4A16"], 8)
        floor = float((module(x) - y).square().mean().detach())
        assert train(module, x, y) < 0.7 * floor


def test_peqa_trains_scales_and_nothing_else() -> None:
    model = make("qwen3")
    prepare(model, Quantized("W4A16", 8, "scales"))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(name.endswith("log_scale") for name in trained)
    assert len(trained) == 14
    before = model.model.layers[0].mlp.up_proj.codes.clone()
    step(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.codes, before)
    assert before.unique().numel() <= 16


def test_weight_decay_pulls_scales_to_where_they_began() -> None:
    """Not to 1, which is no scale of anything."""
    linear, x, y = regression()
    module = ScaledLinear(linear, SCHEMES["W4A16"], 8)
    first = module.scale().detach().clone()
    train(module, x, y)
    moved = (module.scale().detach() / first).log().abs().mean()
    assert moved > 0.01
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=1.0)
    for _ in range(50):
        module.zero_grad()
        (0.0 * module(x).sum()).backward()
        optimizer.step()
    assert (module.scale().detach() / first).log().abs().mean() < 0.1 * moved


def test_qat_trains_every_weight_under_its_own_name() -> None:
    model = make("qwen3")
    names = [name for name, _ in model.named_parameters()]
    prepare(model, Quantized("W8A8"))
    assert [name for name, _ in model.named_parameters()] == names
    before = model.model.layers[1].mlp.down_proj.weight.detach().clone()
    step(model)
    assert not torch.equal(model.model.layers[1].mlp.down_proj.weight, before)


def step(model: nn.Module) -> None:
    ids = torch.arange(4, 16)[None]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


@torch.inference_mode()
def logprobs(model: nn.Module) -> torch.Tensor:
    """[200, 9, V]"""
    ids = torch.randint(4, VOCABULARY, (200, 9), generator=torch.Generator().manual_seed(0))
    found: torch.Tensor = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    return found


@pytest.mark.parametrize("train_what", ["weights", "scales"])
@pytest.mark.parametrize("name", list(SCHEMES))
def test_the_export_is_the_model_that_was_trained(
    name: SchemeName, train_what: Train, tmp_path: Path
) -> None:
    """On 200 prompts, log-probabilities of the reloaded model equal those of the trained one."""
    model, dense = make("llama_untied"), make("llama_untied")
    quantized = Quantized(name, 8, train_what)
    prepare(model, quantized)
    step(model)
    model.eval()
    trained = logprobs(model)
    export(model, quantized, tmp_path)
    assert torch.equal(logprobs(model), trained)
    assert torch.allclose(logprobs(load_model(tmp_path)), trained, atol=1e-2)
    assert not torch.allclose(logprobs(dense), trained, atol=5e-2)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))["quantization_config"]
    weights = config["config_groups"]["group_0"]["weights"]
    assert weights["num_bits"] == SCHEMES[name].bits
    assert weights["group_size"] == (8 if SCHEMES[name].grouped else None)
    assert config["ignore"] == ["lm_head"]


@pytest.mark.parametrize("train_what", ["weights", "scales"])
def test_in_half_precision_too(train_what: Train, tmp_path: Path) -> None:
    """Number for number what was trained; run in bf16, what that would be in bf16."""
    model, half = make("llama_untied"), torch.bfloat16
    quantized = Quantized("W4A16", 8, train_what, stored=half)
    prepare(model, quantized)
    step(model)
    settle(model.eval(), half)
    trained = logprobs(model)
    export(model, quantized, tmp_path)
    assert torch.equal(logprobs(load_model(tmp_path, torch.float32)), trained)
    merged = {name: module.merged() for name, module in rounded_linears(model).items()}
    restore(model)
    for name, weight in merged.items():
        model.get_submodule(name).weight.data = weight
    for parameter in model.parameters():  # not buffers: rotary frequencies stay in fp32
        parameter.data = parameter.data.to(half)
    assert torch.equal(logprobs(load_model(tmp_path)), logprobs(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_scale_is_stored_as_nothing(dtype: torch.dtype) -> None:
    scale = torch.tensor([1e-9, 0.1, 3.0], requires_grad=True)
    held = as_stored(scale, dtype)
    assert torch.equal(held, held.to(dtype).float())
    assert (held > 0).all()
    held.sum().backward()
    assert scale.grad is not None
    assert scale.grad.tolist() == [1.0, 1.0, 1.0]


def test_linears_come_back() -> None:
    model = make("qwen2")
    before = logits(model)
    prepare(model, Quantized("W4A16", 8))
    assert not torch.allclose(logits(model), before, atol=1e-3)
    packed = restore(model)
    assert torch.equal(logits(model), before)
    assert packed.keys() == targets_of(model).keys()


def test_a_group_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(BadInput, match=r"group_size 12 doesn't divide the 32 inputs of model"):
        prepare(make("llama"), Quantized("W4A16", 12))
