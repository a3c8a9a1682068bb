"""Linears that compute with rounded weights while they are trained. m outputs, n inputs, g group
size.

Each says by `packed()` what is stored of it in the end.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.compress.rounding import (
    codes_of,
    round_activations,
    round_weight,
    weight_of,
    weight_scale,
)
from trainer.compress.schemes import Scheme


@dataclass(frozen=True)
class Packed:
    """A linear on its way into a file: rounding `weight` on the grid gives what is stored."""

    weight: Tensor
    """[m, n]"""
    scale: Tensor
    """[m, n / g] or [m, 1]"""
    zero: Tensor | None = None
    """[m, n / g] whole numbers; None where the grid is symmetric."""


class QuantizedLinear(Protocol):
    """What the modules here have in common."""

    @property
    def bias(self) -> Tensor | None:
        """[m]"""

    def packed(self) -> Packed:
        """What is stored."""

    def merged(self) -> Tensor:
        """[m, n] that it computes with, real numbers."""


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass; its gradient goes to x as it is (arXiv:1308.3432)."""
    return x + (rounded - x).detach()


def as_stored(scale: Tensor, stored: torch.dtype) -> Tensor:
    """Scales as a file in that dtype holds them, none of them 0; gradients go straight through."""
    if stored == torch.float32:  # training's own
        return scale
    rounded = scale.to(stored).to(scale.dtype)
    least = torch.finfo(scale.dtype).eps  # which every dtype holds
    return straight_through(scale, torch.where(rounded == 0, least, rounded))


class FakeQuantLinear(nn.Linear):
    """QAT: weights (and inputs, where the scheme says so) are rounded as it computes.

    Parameters keep the names of the linear's, so that a checkpoint holds the unrounded weights.
    """

    def __init__(
        self,
        linear: nn.Linear,
        scheme: Scheme,
        group_size: int,
        stored: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scheme, self.group_size, self.stored = scheme, group_size, stored

    def packed(self) -> Packed:
        """The weights as they are: rounding is what the export does."""
        weight = self.weight.detach()
        scale = weight_scale(weight, self.scheme, self.group_size)
        return Packed(weight, as_stored(scale, self.stored))

    def merged(self) -> Tensor:
        """[m, n]"""
        made = self.packed()
        return round_weight(made.weight, made.scale, self.scheme, self.group_size)

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        weight = straight_through(self.weight, self.merged())
        return F.linear(given(input, self.scheme), weight, self.bias)


class ScaledLinear(nn.Module):
    """PEQA (arXiv:2305.14152): fixed codes, trained scales; weight = codes * scale."""

    def __init__(
        self,
        linear: nn.Linear,
        scheme: Scheme,
        group_size: int,
        stored: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight = linear.weight.detach()
        first = as_stored(weight_scale(weight, scheme, group_size), stored)
        self.scheme, self.stored = scheme, stored
        self.codes = nn.Buffer(codes_of(weight, first, scheme, group_size))
        self.first = nn.Buffer(first)
        # relative to the first: weight decay pulls it to 0, and a scale to where it began
        self.log_scale = nn.Parameter(torch.zeros_like(first))
        self.bias = linear.bias

    def scale(self) -> Tensor:
        """[m, n / g] or [m, 1]; trained as a logarithm, since it must stay positive."""
        return as_stored(self.first * self.log_scale.exp(), self.stored)

    def packed(self) -> Packed:
        """Codes times scales, which round to the same codes again."""
        return Packed(self.merged(), self.scale().detach())

    def merged(self) -> Tensor:
        """[m, n]"""
        return weight_of(self.codes, self.scale()).detach()

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        return F.linear(given(input, self.scheme), weight_of(self.codes, self.scale()), self.bias)


def given(x: Tensor, scheme: Scheme) -> Tensor:
    """Inputs as the scheme has them."""
    if not scheme.rounds_activations:
        return x
    return straight_through(x, round_activations(x.detach(), scheme))


def plain_linear(module: QuantizedLinear) -> nn.Linear:
    """An ordinary linear with the weight that is to be rounded and stored."""
    weight = module.packed().weight
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    linear.bias = module.bias  # type: ignore[assignment]  # None is what bias=False leaves
    return linear


def drawn(rank: int, inputs: int, like: Tensor) -> nn.Parameter:
    """A fresh adapter's first factor [r, n], uniform as a linear's (the other one begins at 0)."""
    made = torch.empty(rank, inputs, dtype=like.dtype, device=like.device)
    return nn.Parameter(nn.init.kaiming_uniform_(made, a=5**0.5))
