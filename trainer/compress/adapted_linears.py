"""Adapters on a rounded base that stays as it is: QLoRA and QA-LoRA.

m outputs, n inputs, g group size, r rank. up [m, r], down [r, n] or [r, n / g];
s = alpha / rank scales their product.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.compress.quantized_linears import Packed, as_stored, drawn, given
from trainer.compress.rounding import (
    codes_of,
    lowest_and_scale,
    rtn,
    spread,
    weight_of,
    weight_scale,
)
from trainer.compress.schemes import Scheme

LEVELS = 15
"""Of four bits, the lowest left out."""
LOWEST, HIGHEST = -8, 7
"""Codes of four bits as they are stored, and what a zero point may be."""


class AdaptedLinear(nn.Module):
    """QLoRA (arXiv:2305.14314) on the grid that is exported: x Q^T + s (x down^T) up^T.

    Q doesn't change. With `loftq_rounds` it and the adapters start as near the weight as
    alternating finds (see `loftq`); with none the adapters start without effect.
    """

    def __init__(
        self,
        linear: nn.Linear,
        scheme: Scheme,
        group_size: int,
        rank: int,
        alpha: int,
        loftq_rounds: int = 0,
        stored: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.scheme, self.group_size, self.stored = scheme, group_size, stored
        self.factor = alpha / rank
        self.down = drawn(rank, weight.shape[1], weight)
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        base = weight
        if loftq_rounds:
            base, up, down = loftq(weight, scheme, group_size, rank, loftq_rounds)
            self.up.data, self.down.data = up / self.factor, down
        scale = as_stored(weight_scale(base, scheme, group_size), stored)
        self.codes = nn.Buffer(codes_of(base, scale, scheme, group_size))
        self.scale = nn.Buffer(scale)
        self.bias = linear.bias

    def merged(self) -> Tensor:
        """[m, n] of real numbers, off the grid."""
        return (weight_of(self.codes, self.scale) + self.factor * self.up @ self.down).detach()

    def packed(self) -> Packed:
        """Merged, with scales of its own: rounding it again is what the export costs."""
        merged = self.merged()
        scale = weight_scale(merged, self.scheme, self.group_size)
        return Packed(merged, as_stored(scale, self.stored))

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        x = given(input, self.scheme)
        base = F.linear(x, weight_of(self.codes, self.scale), self.bias)
        return base + self.factor * F.linear(F.linear(x, self.down), self.up)


class PooledLinear(nn.Module):
    """QA-LoRA (arXiv:2309.14717): adapters that see the sum of each group of inputs.

    Their product is then one number for each output and group, which a group's zero point takes
    up exactly: weight = codes * scale + offset + s up down. Codes 0..15, offsets real.
    """

    def __init__(
        self,
        linear: nn.Linear,
        group_size: int,
        rank: int,
        alpha: int,
        stored: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.group_size, self.factor = group_size, alpha / rank
        lowest, scale = lowest_and_scale(weight, group_size, LEVELS)
        scale = as_stored(scale, stored)
        shifted = (weight - spread(lowest, weight.shape[1])) / spread(scale, weight.shape[1])
        self.codes = nn.Buffer(shifted.round().clamp(0, LEVELS).to(torch.uint8))
        self.scale, self.offset = nn.Buffer(scale), nn.Buffer(lowest)
        self.down = drawn(rank, weight.shape[1] // group_size, weight)
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.bias = linear.bias

    def offsets(self) -> Tensor:
        """[m, n / g]: real zero points that hold the adapters, exactly."""
        return (self.offset + self.factor * self.up @ self.down).detach()

    def merged(self) -> Tensor:
        """[m, n]: codes, scales and offsets, without adapters."""
        return weight_of(self.codes, self.scale) + spread(self.offsets(), self.codes.shape[1])

    def packed(self) -> Packed:
        """With whole zero points: weight = (code - zero) * scale, code and zero -8..7."""
        zero = (LOWEST - self.offsets() / self.scale).round().clamp(LOWEST, HIGHEST)
        signed = self.codes.to(self.scale) + LOWEST
        weight = weight_of(signed - spread(zero, signed.shape[1]), self.scale)
        return Packed(weight, self.scale, zero)

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        n = self.codes.shape[1]
        base = weight_of(self.codes, self.scale) + spread(self.offset, n)
        pooled = input.unflatten(-1, (-1, self.group_size)).sum(dim=-1)
        added = F.linear(F.linear(pooled, self.down), self.up)
        return F.linear(input, base, self.bias) + self.factor * added


def loftq(
    weight: Tensor, scheme: Scheme, group_size: int, rank: int, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """base [m, n], up [m, r], down [r, n] of the least |W - Q(base) - up down|_F met in so many
    rounds of rounding what the adapters leave, and the truncated SVD of what rounding leaves
    (arXiv:2310.08659, algorithm 1)."""
    found, least = (weight, weight, weight), float("inf")
    base = weight
    for _ in range(rounds):
        left_over = weight - rtn(base, scheme, group_size)
        up, down = truncated(left_over, rank)
        lost = float((left_over - up @ down).norm())
        if lost < least:
            found, least = (base, up, down), lost
        base = weight - up @ down
    return found


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [m, r], down [r, n] of least |matrix - up down|_F (Eckart and Young, 1936)."""
    u, values, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    return (u[:, :rank] * roots).to(matrix), (roots[:, None] * vt[:rank]).to(matrix)
