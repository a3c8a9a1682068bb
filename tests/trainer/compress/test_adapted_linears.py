"""QLoRA, LoftQ and QA-LoRA against their mathematics."""

from pathlib import Path

import pytest
import torch
from peft.utils.loftq_utils import _low_rank_decomposition
from torch import Tensor, nn

from tests.trainer.compress.families import make
from tests.trainer.compress.models import logits
from trainer.compress.adapted_linears import AdaptedLinear, PooledLinear, loftq
from trainer.compress.fake_quant import (
    Quantized,
    export,
    merge_error,
    prepare,
    restore,
    rounded_linears,
)
from trainer.compress.rounding import rtn, spread, weight_scale
from trainer.compress.schemes import SCHEMES, check_rank, targets_of
from trainer.errors import BadInput
from trainer.loading import load_model

W4 = SCHEMES["W4A16"]


def linear(seed: int = 0) -> tuple[nn.Linear, Tensor]:
    """fp64, 12 outputs, 16 inputs; and 5 rows of those."""
    torch.manual_seed(seed)
    return nn.Linear(16, 12).double(), torch.randn(5, 16, dtype=torch.float64)


def moved(module: nn.Module) -> None:
    """Adapters as training might leave them."""
    for parameter in (dict(module.named_parameters())[name] for name in ("up", "down")):
        parameter.data += 0.1 * torch.randn_like(parameter)


def test_qlora_computes_with_the_rounded_base_and_its_adapters() -> None:
    dense, x = linear()
    base, bias = rtn(dense.weight.detach(), W4, 8), dense.bias
    module = AdaptedLinear(dense, W4, 8, rank=3, alpha=6)
    assert torch.allclose(module(x), x @ base.T + bias)
    moved(module)
    expected = x @ base.T + 2.0 * x @ module.down.T @ module.up.T + bias
    assert torch.allclose(module(x), expected)
    assert torch.allclose(x @ module.merged().T + bias, expected)
    packed = module.packed()
    assert torch.equal(packed.weight, module.merged())
    assert torch.equal(packed.scale, weight_scale(module.merged(), W4, 8))


def test_qlora_trains_adapters_and_nothing_else() -> None:
    model = make("qwen2")
    prepare(model, Quantized("W4A16", 8, "adapters", rank=2))
    model(input_ids=torch.arange(4, 16)[None]).logits.sum().backward()
    trained = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"up", "down"}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_one_round_of_loftq_is_the_best_low_rank_part_of_what_rounding_leaves() -> None:
    """Eckart and Young: what is left are the singular values beyond the rank."""
    weight = linear()[0].weight.detach()
    base, up, down = loftq(weight, W4, 8, rank=3, rounds=1)
    assert torch.equal(base, weight)
    left_over = weight - rtn(weight, W4, 8)
    beyond = torch.linalg.svdvals(left_over)[3:].square().sum().sqrt()
    assert torch.allclose((left_over - up @ down).norm(), beyond)


def test_rounds_of_loftq_are_those_of_peft() -> None:
    """Its rounds around our rounding: its own can only round to what a GPU's kernels take."""
    later = 0
    for seed in range(8):
        weight = linear(seed)[0].weight.detach()
        base, rounds = weight, []
        for _ in range(5):
            rounded = rtn(base, W4, 16)
            parts = _low_rank_decomposition(weight - rounded, reduced_rank=1)
            factors = parts["L"] @ parts["R"]
            rounds.append((float((weight - rounded - factors).norm()), base, factors))
            base = weight - factors
        _, least, theirs = min(rounds, key=lambda one: one[0])
        found, up, down = loftq(weight, W4, 16, rank=1, rounds=5)
        assert torch.allclose(found, least)
        assert torch.allclose(up @ down, theirs)
        later += not torch.equal(found, weight)
    assert later > 3  # rounds after the first find something nearer


def test_more_rounds_of_loftq_are_never_further() -> None:
    for seed in range(5):
        weight = linear(seed)[0].weight.detach()

        def lost(rounds: int, weight: Tensor = weight) -> float:
            base, up, down = loftq(weight, W4, 8, 3, rounds)
            return float((weight - rtn(base, W4, 8) - up @ down).norm())

        losses = [lost(rounds) for rounds in (1, 2, 5)]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] < float((weight - rtn(weight, W4, 8)).norm())


def test_a_loftq_start_is_what_it_found() -> None:
    later = 0
    for seed in range(8):
        dense, x = linear(seed)
        base, up, down = loftq(dense.weight.detach(), W4, 16, 1, 5)
        module = AdaptedLinear(dense, W4, 16, rank=1, alpha=12, loftq_rounds=5)
        expected = x @ (rtn(base, W4, 16) + up @ down).T + dense.bias
        assert torch.allclose(module(x), expected)
        later += not torch.equal(base, dense.weight)
    assert later > 3  # rounds after the first find something nearer


def pooled() -> tuple[nn.Linear, Tensor, PooledLinear]:
    dense, x = linear()
    return dense, x, PooledLinear(dense, 4, rank=3, alpha=6)


def test_qa_lora_starts_at_the_nearest_of_sixteen_levels() -> None:
    dense, x, module = pooled()
    half = spread(module.scale, 16) / 2
    assert ((module.merged() - dense.weight.detach()).abs() <= half + 1e-12).all()
    assert torch.allclose(module(x), x @ module.merged().T + dense.bias)
    assert int(module.codes.max()) == 15


def test_qa_loras_merge_into_zero_points_is_exact() -> None:
    """Its adapters, on sums of groups, change a group's weights by one number each."""
    dense, x, module = pooled()
    before = module.merged()
    moved(module)
    sums = x.unflatten(-1, (4, 4)).sum(dim=-1)
    expected = x @ before.T + dense.bias + 2.0 * sums @ module.down.T @ module.up.T
    assert torch.allclose(module(x), expected)
    assert torch.allclose(x @ module.merged().T + dense.bias, expected, rtol=1e-12)
    change = (module.merged() - before).unflatten(1, (4, 4))
    assert torch.allclose(change, change[..., :1].expand_as(change))
    assert change.abs().max() > 0.01


def test_whole_zero_points_are_the_nearest_that_four_bits_hold() -> None:
    _, _, module = pooled()
    moved(module)
    packed = module.packed()
    assert packed.zero is not None
    assert torch.equal(packed.zero, packed.zero.round())
    assert packed.zero.abs().max() <= 8
    real = -8 - module.offsets() / module.scale
    inside = (real > -8) & (real < 7)
    assert ((packed.zero - real).abs()[inside] <= 0.5).all()
    lost = (packed.weight - module.merged()).abs() / spread(module.scale, 16)
    assert (lost[spread(inside.double(), 16).bool()] <= 0.5 + 1e-9).all()
    expected = (packed.weight - module.merged()).norm() / module.merged().norm()
    assert merge_error(module, Quantized("W4A16", 4, "pooled_adapters")) == float(expected)


@pytest.mark.parametrize("train", ["adapters", "pooled_adapters"])
def test_the_export_is_the_merged_model(train: str, tmp_path: Path) -> None:
    """What transformers loads computes with the codes, scales and zero points that were packed."""
    model = make("llama_untied")
    quantized = Quantized("W4A16", 8, train, rank=4, alpha=4)  # type: ignore[arg-type]
    prepare(model, quantized)
    for module in rounded_linears(model).values():
        moved(module)  # type: ignore[arg-type]
    model.eval()
    trained = logits(model)
    export(model, quantized, tmp_path)
    assert torch.equal(logits(model), trained)
    for name, one in restore(model).items():
        weight = one.weight
        if one.zero is None:
            weight = rtn(weight, W4, 8)
        model.get_submodule(name).weight.data = weight
    expected = logits(model).log_softmax(-1)
    loaded = load_model(tmp_path)
    assert torch.allclose(logits(loaded).log_softmax(-1), expected, atol=1e-3)
    assert not torch.allclose(trained.log_softmax(-1), expected, atol=1e-3)


def test_merging_loses_nothing_where_nothing_was_merged() -> None:
    for train in ("weights", "scales"):
        model = make("llama")
        quantized = Quantized("W4A16", 8, train)
        prepare(model, quantized)
        for module in rounded_linears(model).values():
            assert merge_error(module, quantized) < 1e-6


def test_adapters_no_smaller_than_the_linear_are_refused() -> None:
    linears = targets_of(make("llama"))
    check_rank(linears, 15)
    with pytest.raises(BadInput, match=r"rank 16 is no less than the 16 of model.layers.0"):
        check_rank(linears, 16)
