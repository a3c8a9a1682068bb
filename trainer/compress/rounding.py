"""Rounding to a grid, as compressed-tensors stores it. m outputs, n inputs, g group size.

Integers are symmetric: scale = max|w| / ((2^b - 1) / 2), q = clamp(round(w / scale), -2^(b-1),
2^(b-1) - 1). Floats (e4m3): scale = max|w| / 448, rounded to the nearest float8.
"""

import torch
from torch import Tensor

from trainer.compress.schemes import Scheme

FP8_MAX = 448.0


def weight_scale(weight: Tensor, scheme: Scheme, group_size: int) -> Tensor:
    """[m, n] -> [m, n / g], or [m, 1] for channels."""
    return _scale(_grouped(weight, scheme, group_size).abs().amax(dim=-1), scheme)


def round_weight(weight: Tensor, scale: Tensor, scheme: Scheme, group_size: int) -> Tensor:
    """weight [m, n] on the grid of scale [m, n / g] or [m, 1]; differentiable in the scale alone
    where rounding is held constant."""
    grouped = _grouped(weight, scheme, group_size)
    return (_to_grid(grouped / scale[..., None], scheme) * scale[..., None]).reshape(weight.shape)


def codes_of(weight: Tensor, scale: Tensor, scheme: Scheme, group_size: int) -> Tensor:
    """[m, n] of what is stored: int8, or float8."""
    grouped = _grouped(weight, scheme, group_size)
    codes = _to_grid(grouped / scale[..., None], scheme).reshape(weight.shape)
    return codes.to(torch.float8_e4m3fn if scheme.number == "float" else torch.int8)


def weight_of(codes: Tensor, scale: Tensor) -> Tensor:
    """[m, n] of codes [m, n] and scale [m, n / g] or [m, 1]; differentiable in the scale."""
    return codes.to(scale.dtype) * spread(scale, codes.shape[1])


def spread(values: Tensor, inputs: int) -> Tensor:
    """[m, n / g] -> [m, n], each for its group."""
    return values.repeat_interleave(inputs // values.shape[1], dim=1)


def lowest_and_scale(weight: Tensor, group_size: int, levels: int) -> tuple[Tensor, Tensor]:
    """Of each group, its least number and the step that takes `levels` of them to its largest;
    both [m, n / g]. Zero is within every range."""
    grouped = weight.unflatten(1, (-1, group_size))
    lowest, highest = grouped.amin(dim=-1).clamp_max(0), grouped.amax(dim=-1).clamp_min(0)
    scale = (highest - lowest) / levels
    return lowest, torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)


def round_activations(x: Tensor, scheme: Scheme) -> Tensor:
    """[..., n] with a scale for each token."""
    scale = _scale(x.abs().amax(dim=-1, keepdim=True), scheme)
    return _to_grid(x / scale, scheme) * scale


def rtn(weight: Tensor, scheme: Scheme, group_size: int) -> Tensor:
    """Round to nearest: [m, n] -> [m, n]."""
    return round_weight(weight, weight_scale(weight, scheme, group_size), scheme, group_size)


def _grouped(weight: Tensor, scheme: Scheme, group_size: int) -> Tensor:
    """[m, n / g, g]"""
    size = group_size if scheme.grouped else weight.shape[1]
    grouped: Tensor = weight.unflatten(1, (-1, size))
    return grouped


def _scale(largest: Tensor, scheme: Scheme) -> Tensor:
    span = FP8_MAX if scheme.number == "float" else (2**scheme.bits - 1) / 2
    scale = largest / span
    return torch.where(scale == 0, torch.finfo(scale.dtype).eps, scale)


def _to_grid(x: Tensor, scheme: Scheme) -> Tensor:
    if scheme.number == "float":
        clamped = x.clamp(-FP8_MAX, FP8_MAX)
        return clamped.to(torch.float8_e4m3fn).to(x.dtype)
    half = 2 ** (scheme.bits - 1)
    return x.round().clamp(-half, half - 1)
