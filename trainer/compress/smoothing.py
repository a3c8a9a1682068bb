"""Moving size from one linear's inputs to its weights, which changes nothing before rounding.

What feeds a linear is divided by s, its columns multiplied by s. SmoothQuant (arXiv:2211.10438)
evens out activations and weights, so that both round well; AWQ (arXiv:2306.00978) makes the
columns that matter larger, so that they round finely. n inputs, m outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.activations import remove, run_until_reached, stopping
from trainer.compress.anatomy import Anatomy, find_anatomy, has_offset
from trainer.compress.moments import Collect, Moments
from trainer.compress.rounding import rtn
from trainer.compress.schemes import Scheme
from trainer.data import TokenRow
from trainer.errors import BadInput

SMOOTHING = 0.5
"""SmoothQuant's alpha (eq. 4)."""
GRID = 20
"""AWQ's exponents searched: 0, 1/20, ... 1 (section 3.2)."""

Choose = Callable[[Sequence[Tensor], Moments], Tensor]
"""(weights [m, n] that read one tensor, its moments) -> s [n]"""


@dataclass(frozen=True)
class Fold:
    """A module whose output some linears read, by names within a layer."""

    source: str
    norm: bool
    """Whether it is a norm; else a linear that the block multiplies through."""
    readers: tuple[str, ...]


def smooth(
    model: PreTrainedModel, rows: Sequence[TokenRow], gather: Collect, choose: Choose
) -> list[dict[str, float]]:
    """Rescale every place that can be, in place; for each layer, the largest s by source."""
    anatomy = find_anatomy(model)
    folds = find_folds(model, anatomy)
    largest = []
    moments = list(gather(model, rows))  # of the model before any of it is rescaled
    for index, found in enumerate(moments):
        layer = model.get_submodule(anatomy.layer(index))
        told = {}
        for fold in folds:
            weights = [_weight(layer, name).detach().double() for name in fold.readers]
            s = choose(weights, found[fold.readers[0]])
            rescale(layer, fold, s)
            told[fold.source] = float(s.max())
        largest.append(told)
    return largest


def smoothquant(weights: Sequence[Tensor], moments: Moments) -> Tensor:
    """max|x_j|^a / max|w_j|^(1 - a) (eq. 4)."""
    of_weights = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
    s = moments.max_abs.clamp_min(1e-8) ** SMOOTHING / of_weights.clamp_min(1e-8) ** (1 - SMOOTHING)
    return s.clamp(1e-4, 1e4)


def awq(scheme: Scheme, group_size: int) -> Choose:
    """mean|x_j|^a, the a whose rounded weights lose least: |(W - Q(W s) / s) X^T|^2 (eqs. 4, 5).

    The loss comes from X^T X, so that no forward pass is run for any a.
    """

    def choose(weights: Sequence[Tensor], moments: Moments) -> Tensor:
        best, least = torch.ones_like(moments.mean_abs), float("inf")
        for step in range(GRID + 1):
            s = moments.mean_abs.clamp_min(1e-8) ** (step / GRID)
            s = (s / (s.max() * s.min()).sqrt()).clamp(1e-4, 1e4)
            lost = sum(
                rounding_loss(weight, rtn(weight * s, scheme, group_size) / s, moments.gram)
                for weight in weights
            )
            if lost < least:
                best, least = s, lost
        return best

    return choose


def rounding_loss(weight: Tensor, made: Tensor, gram: Tensor) -> float:
    """|(W - W') X^T|_F^2"""
    lost = weight - made
    return float(((lost @ gram) * lost).sum())


def find_folds(model: PreTrainedModel, anatomy: Anatomy) -> list[Fold]:
    """Places where a norm feeds linears, an ungated half the down projection, and values the
    output projection (where each value head has one query head)."""
    attention, block = anatomy.attention, anatomy.feed_forward
    up = tuple(part for part in (block.gate, block.up) if part)
    sources = _feeding_norms(model, anatomy)
    folds = [
        Fold(sources[attention.query], True, (attention.query, attention.key, attention.value)),
        Fold(sources[block.up], True, up),
    ]
    if block.gate is not None:  # through an activation nothing can be moved
        folds.append(Fold(block.up, False, (block.down,)))
    if attention.heads == attention.groups:
        folds.append(Fold(attention.value, False, (attention.output,)))
    return folds


@torch.no_grad()
def rescale(layer: nn.Module, fold: Fold, s: Tensor) -> None:
    """Divide what `source` gives by s [n], multiply its readers' columns."""
    for name in fold.readers:
        weight = _weight(layer, name)
        weight.copy_(weight.double() * s)
    source = layer.get_submodule(fold.source)
    offset = float(fold.norm and has_offset(source))
    for tensor in dict(source.named_parameters()).values():
        by = s if tensor.dim() == 1 else s[:, None]
        tensor.copy_((tensor.double() + offset) / by - offset)


def _feeding_norms(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, str]:
    """Which norm's output the query and the up projection read, in the first layer."""
    layer = model.get_submodule(anatomy.layer(0))
    made: list[tuple[str, Tensor]] = []
    read: dict[str, Tensor] = {}

    def gives(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: made.append((name, output))

    def reads(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: read.update({name: inputs[0]})

    wanted = (anatomy.attention.query, anatomy.feed_forward.up)
    handles = [layer.get_submodule(n).register_forward_hook(gives(n)) for n in anatomy.norms]
    handles += [layer.get_submodule(n).register_forward_pre_hook(reads(n)) for n in wanted]
    handles.append(stopping(layer))
    ids = torch.arange(1, 5, device=model.device)[None] % model.config.vocab_size
    try:
        run_until_reached(model, ids, torch.ones_like(ids, dtype=torch.bool))
    finally:
        remove(handles)
    found = {part: norm for part in wanted for norm, output in made if output is read[part]}
    if len(found) != len(wanted):
        raise BadInput(
            f"no norm of {type(model).__name__} feeds its linears directly",
            f"Found {found or 'none'}; smoothquant and awq rescale norms. Use gptq or rtn.",
        )
    return found


def _weight(layer: nn.Module, name: str) -> Tensor:
    return dict(layer.get_submodule(name).named_parameters())["weight"]
