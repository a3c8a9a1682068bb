"""Which weights of a matrix [m, n] stay, given a score for each: m outputs, n inputs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.compress.outcome import Outcome
from trainer.errors import BadInput

DENSE = "a mask alone shrinks nothing: the zeros are stored and multiplied like any number, so "
DENSE += "bytes and latency stay as they were"

LEAST_SHARE = 0.05
"""Of zeros, under which they are no mask's: rounding makes a few."""

Pattern = Literal["unstructured", "2:4", "4:8"]


def keep_in_rows(scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """True for what stays, compared within each output row: [m, n] -> [m, n].

    Unstructured drops the round(sparsity * n) lowest of each row; n:m keeps the n highest of each
    m neighbours. Among equals the first is dropped.
    """
    if pattern == "unstructured":
        return _drop_lowest(scores, round(sparsity * scores.shape[1]))
    kept, group = group_of(pattern, scores.shape[1])
    return _drop_lowest(scores.reshape(-1, group), group - kept).reshape(scores.shape)


def keep_in_all(scores: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """As `keep_in_rows`, but unstructured compares the whole matrix."""
    if pattern == "unstructured":
        whole = scores.reshape(1, -1)
        return _drop_lowest(whole, round(sparsity * scores.numel())).reshape(scores.shape)
    return keep_in_rows(scores, sparsity, pattern)


def group_of(pattern: Pattern, inputs: int) -> tuple[int, int]:
    """(n, m) of an n:m pattern. Raises BadInput where m doesn't divide the inputs."""
    kept, group = (int(part) for part in pattern.split(":"))
    if inputs % group:
        raise BadInput(
            f"pattern {pattern} doesn't fit a linear with {inputs} inputs",
            f"{inputs} is no multiple of {group}. Use pattern: unstructured.",
        )
    return kept, group


def check_layers(layer_sparsities: Sequence[float] | None, layers: int, path: str) -> None:
    """One share for each layer, or none at all."""
    if layer_sparsities is not None and len(layer_sparsities) != layers:
        raise BadInput(
            f"{path}.layer_sparsities has {len(layer_sparsities)} values",
            f"The model has {layers} decoder layers: give one share for each.",
        )


def zero_share(linears: Sequence[Mapping[str, nn.Linear]]) -> dict[str, Any]:
    """Zeros among the weights of each layer's linears."""
    counts = [
        (
            sum(int((linear.weight == 0).sum()) for linear in each.values()),
            sum(linear.weight.numel() for linear in each.values()),
        )
        for each in linears
    ]
    total = sum(size for _, size in counts)
    return {
        "sparsity": sum(zeros for zeros, _ in counts) / total,
        "layer_sparsities": [zeros / size for zeros, size in counts],
        "pruned_linears_parameters": total,
    }


def told_lost(linears: Sequence[Mapping[str, nn.Linear]]) -> tuple[str, ...]:
    """A note where linears that are about to be decomposed have a mask's zeros."""
    share = zero_share(linears)["sparsity"]
    if share < LEAST_SHARE:
        return ()
    return (
        f"a mask's zeros are gone: {share:.0%} of the weights that it decomposed were zero, and "
        "the factors are dense",
    )


def find_masked(layers: Iterable[nn.Module]) -> set[str]:
    """Names, within a layer, of linears that have a mask's zeros in some layer."""
    return {
        name
        for layer in layers
        for name, linear in find_linears(layer).items()
        if int((linear.weight == 0).sum()) >= LEAST_SHARE * linear.weight.numel()
    }


def find_zeros(model: PreTrainedModel) -> dict[str, Tensor]:
    """True where a weight is zero, for each linear of the decoder layers that has zeros."""
    layout = find_layers(model)
    found = {}
    for index, layer in enumerate(layout.layers):
        for name, linear in find_linears(layer).items():
            zeros = linear.weight.detach() == 0
            if zeros.any():
                found[f"{layout.name}.{index}.{name}.weight"] = zeros
    return found


@torch.no_grad()
def put_back(zeros: Mapping[str, Tensor], model: nn.Module) -> None:
    """Make the weights that were found to be zero so again, in place."""
    parameters = dict(model.named_parameters())
    for name, mask in zeros.items():
        parameters[name].masked_fill_(mask.to(parameters[name].device), 0.0)


def masked(model: Any, linears: Sequence[Mapping[str, nn.Linear]], **details: Any) -> Outcome:
    """The outcome of a stage that only sets weights to zero."""
    return Outcome(model, {**zero_share(linears), **details}, (DENSE,))


def _drop_lowest(scores: Tensor, count: int) -> Tensor:
    """[rows, width] -> bool [rows, width] with exactly `count` False in each row."""
    lowest = scores.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, lowest, False)
