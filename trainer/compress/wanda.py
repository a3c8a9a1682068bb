"""Unstructured and n:m pruning by weights and activations (Wanda, arXiv:2306.11695).

m outputs, n inputs of a linear; N tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.activations import observe
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import WandaPrune

DENSE = "a mask alone shrinks nothing: the zeros are stored and multiplied like any number, so "
DENSE += "bytes and latency stay as they were"


def apply(stage: WandaPrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Prune every linear of the decoder layers in place, the first layer first.

    A layer's activations are those that come through the layers already pruned. Embeddings and
    head stay whole. Raises BadInput where an n:m pattern doesn't fit a linear.
    """
    layers = find_layers(model).layers
    zeros = total = 0
    for layer in layers:
        linears = find_linears(layer)
        squares: dict[str, Tensor] = {}

        def see(name: str, x: Tensor, mask: Tensor, squares: dict[str, Tensor] = squares) -> None:
            here = x[mask].double().square().sum(dim=0)
            squares[name] = squares[name] + here if name in squares else here

        observe(model, linears, rows, see, until=layer)
        for name, linear in linears.items():
            scores = importance(linear.weight, squares[name].sqrt())
            kept = keep_mask(scores, stage)
            linear.weight.data.mul_(kept)
            zeros += int((linear.weight == 0).sum())
            total += kept.numel()
    details = {"sparsity": zeros / total, "pruned_linears_parameters": total}
    return Outcome(model, details, (DENSE,))


def importance(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| * ||x_j||_2 (eq. 1): weight [m, n], norms [n] over all tokens -> [m, n]."""
    return weight.detach().double().abs() * norms.double()


def keep_mask(scores: Tensor, stage: WandaPrune) -> Tensor:
    """True for what stays, compared within each output row: [m, n] -> [m, n].

    Unstructured drops the round(sparsity * n) lowest of each row; n:m keeps the n highest of each
    m neighbours. Among equals the first is dropped.
    """
    if stage.pattern == "unstructured":
        return _drop_lowest(scores, round(stage.sparsity * scores.shape[1]))
    kept, group = (int(part) for part in stage.pattern.split(":"))
    rows, inputs = scores.shape
    if inputs % group:
        raise BadInput(
            f"pattern {stage.pattern} doesn't fit a linear with {inputs} inputs",
            f"{inputs} is no multiple of {group}. Use pattern: unstructured.",
        )
    return _drop_lowest(scores.reshape(-1, group), group - kept).reshape(rows, inputs)


def _drop_lowest(scores: Tensor, count: int) -> Tensor:
    """[rows, width] -> bool [rows, width] with exactly `count` False in each row."""
    lowest = scores.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, lowest, False)
