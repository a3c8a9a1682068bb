"""Ranks for a bound on the model's own loss: how few parameters keep it. m outputs, n inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.likelihood import mean_loss
from trainer.compress.ranks import Matrix, lowest, parameters, within_parameters
from trainer.data import TokenRow
from trainer.errors import BadInput

PRECISE = 0.01
"""The search ends when the budget is known to this share of the largest."""


@dataclass(frozen=True)
class Found:
    """The ranks, and the next-token loss of the rows before and with them, nats per token."""

    ranks: dict[str, int]
    loss_before: float
    loss_after: float


def within_loss(
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    factors: Mapping[str, tuple[Tensor, Tensor]],
    rows: Sequence[TokenRow],
    bound: float,
) -> Found:
    """Ranks whose model loses at most `bound` nats per token of the rows, by bisection of the
    budget that `within_parameters` spends. The weights are as they were when it returns.

    `factors` are left [m, r], right [r, n] of each linear at its largest rank, by singular values
    falling: a lower rank takes the first of them. Raises BadInput where the largest ranks that
    still save parameters lose more.
    """
    linears = {name: model.get_submodule(name) for name in factors}
    kept = {
        name: linear.get_parameter("weight").detach().clone() for name, linear in linears.items()
    }

    def loss_with(ranks: Mapping[str, int]) -> float:
        for name, rank in ranks.items():
            left, right = factors[name]
            _put(linears[name], left[:, :rank] @ right[:rank])
        return mean_loss(model, rows)

    before = mean_loss(model, rows)
    try:
        best = {name: matrix.most for name, matrix in matrices.items()}
        after = loss_with(best)
        if after > before + bound:
            raise BadInput(
                f"no ranks keep the loss within max_loss_increase {bound}",
                f"The largest that still save parameters raise it from {before:.4f} to "
                f"{after:.4f} nats per token of the calibration rows. Allow more, or name fewer "
                "targets.",
            )
        low = parameters(matrices, lowest(matrices))
        high = whole = parameters(matrices, best)
        while high - low > PRECISE * whole:
            middle = (low + high) // 2
            ranks = within_parameters(matrices, middle)
            loss = loss_with(ranks)
            if loss <= before + bound:
                best, after, high = ranks, loss, middle
            else:
                low = middle
    finally:
        for name, linear in linears.items():
            _put(linear, kept[name])
    return Found(best, before, after)


@torch.no_grad()
def _put(linear: nn.Module, weight: Tensor) -> None:
    linear.get_parameter("weight").copy_(weight)
