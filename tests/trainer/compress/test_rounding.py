"""The grids against compressed-tensors' own, and every value enumerated."""

import pytest
import torch
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams

from trainer.compress.rounding import round_activations, round_weight, rtn, weight_scale
from trainer.compress.schemes import SCHEMES, config_group
from trainer.spec import SchemeName


@pytest.mark.parametrize("name", list(SCHEMES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_round_as_the_export_stores_them(name: SchemeName, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, scheme = torch.randn(6, 32).to(dtype), SCHEMES[name]
    args = config_group(name, 8).weights
    grouped = weight.unflatten(1, (-1, 8 if scheme.grouped else 32))
    scale, zero = calculate_qparams(grouped.amin(dim=-1), grouped.amax(dim=-1), args)
    assert torch.equal(weight_scale(weight, scheme, 8), scale)
    assert torch.equal(rtn(weight, scheme, 8), fake_quantize(weight, scale, zero, args))


@pytest.mark.parametrize("name", ["W8A8", "FP8"])
def test_activations_round_per_token(name: SchemeName) -> None:
    x, args = torch.randn(2, 5, 16), config_group(name, 8).input_activations
    low, high = x.amin(dim=-1, keepdim=True), x.amax(dim=-1, keepdim=True)
    scale, zero = calculate_qparams(low, high, args)
    assert torch.equal(round_activations(x, SCHEMES[name]), fake_quantize(x, scale, zero, args))


def test_no_point_of_the_grid_is_nearer() -> None:
    weight, scheme = torch.randn(3, 8), SCHEMES["W4A16"]
    scale = weight_scale(weight, scheme, 4)
    points = torch.arange(-8, 8) * scale.repeat_interleave(4, dim=1)[..., None]
    nearest = (points - weight[..., None]).abs().amin(dim=-1)
    made = round_weight(weight, scale, scheme, 4)
    assert torch.allclose((made - weight).abs(), nearest, atol=1e-6)


def test_a_row_of_zeros_stays_zero() -> None:
    for scheme in SCHEMES.values():
        assert (rtn(torch.zeros(2, 8), scheme, 4) == 0).all()
