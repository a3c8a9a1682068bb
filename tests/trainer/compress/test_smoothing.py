"""Rescaling changes nothing before rounding, and helps after it."""

import pytest
import torch

from tests.trainer.compress.families import FAMILIES, make
from tests.trainer.compress.models import logits, token_rows
from trainer.compress.anatomy import find_anatomy
from trainer.compress.moments import Moments, collect
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES
from trainer.compress.smoothing import awq, find_folds, rounding_loss, smooth, smoothquant


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choose", [smoothquant, awq(SCHEMES["W4A16"], 8)])
def test_before_rounding_nothing_changes(family: str, choose) -> None:  # type: ignore[no-untyped-def]
    model = make(family, num_key_value_heads=4 if family == "mistral" else 2)
    before = logits(model)
    weight = model.model.layers[0].mlp.down_proj.weight.detach().clone()
    told = smooth(model, token_rows(4), collect, choose)
    assert torch.allclose(logits(model), before, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(model.model.layers[0].mlp.down_proj.weight, weight)
    assert len(told) == 2


def test_values_are_rescaled_where_each_has_a_query_of_its_own() -> None:
    for groups, count in ((4, 4), (2, 3)):
        model = make("llama", num_key_value_heads=groups)
        assert len(find_folds(model, find_anatomy(model))) == count


def problem() -> tuple[torch.Tensor, Moments]:
    """A weight [12, 16] and inputs of which some are far larger than others."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 16, dtype=torch.float64, generator=generator)
    x = (x + 0.4 * x.roll(1, dims=1)) * torch.logspace(1, -1, 16, dtype=torch.float64)
    weight = torch.randn(12, 16, dtype=torch.float64, generator=generator)
    return weight, Moments(x.T @ x, x.abs().mean(dim=0), x.abs().amax(dim=0))


def test_awq_is_the_best_of_its_grid_and_no_worse_than_rtn() -> None:
    weight, moments = problem()
    scheme = SCHEMES["W4A16"]
    s = awq(scheme, 8)([weight], moments)
    found = rounding_loss(weight, rtn(weight * s, scheme, 8) / s, moments.gram)
    for step in range(21):
        other = moments.mean_abs ** (step / 20)
        other = other / (other.max() * other.min()).sqrt()
        lost = rounding_loss(weight, rtn(weight * other, scheme, 8) / other, moments.gram)
        assert found <= lost * (1 + 1e-9)
    floor = rounding_loss(weight, rtn(weight, scheme, 8), moments.gram)
    assert found < 0.9 * floor


def test_smoothquant_by_hand() -> None:
    weight = torch.tensor([[1.0, -4.0], [0.5, 2.0]], dtype=torch.float64)
    moments = Moments(
        torch.eye(2).double(), torch.ones(2).double(), torch.tensor([9.0, 4.0]).double()
    )
    assert torch.allclose(smoothquant([weight], moments), torch.tensor([3.0, 1.0]).double())


def test_the_rounding_loss_is_that_of_the_outputs() -> None:
    weight, x = torch.randn(3, 4).double(), torch.randn(9, 4).double()
    made = weight.round()
    expected = ((weight - made) @ x.T).square().sum()
    assert rounding_loss(weight, made, x.T @ x) == pytest.approx(float(expected))
