"""Experimental: attention weights folded over heads and decomposed (after TensorLLM, 2501.15674).

Queries and outputs of a layer make one tensor [D, h, 2, H], keys and values another
[D, h, 2, G]: D width, h head size, H heads, G groups. Of one matrix, Tucker would be an SVD with
a spare core; folded, all heads share factors. Compared with an SVD at equal parameters, always.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorly
import torch
from numpy.typing import NDArray
from tensorly.decomposition import parafac, partial_tucker
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.anatomy import Anatomy, find_anatomy
from trainer.compress.factors import factorize_plain
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import told_lost
from trainer.compress.outcome import Outcome
from trainer.compress.ranks import rank_for
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import TensorFactorize

Array = NDArray[np.float64]

STORED_DENSE = (
    "experimental: the folded weights are stored multiplied out, so bytes and latency stay as they "
    "were; `parameters` is what the factors would take"
)
CP_ITERATIONS = 200


@dataclass(frozen=True)
class Decomposed:
    """An approximation of a folded tensor, multiplied out."""

    tensor: Array
    parameters: int
    residuals: tuple[float, ...]
    """|T - T'| / |T| of each start, the one kept first."""


def apply(stage: TensorFactorize, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Replace the attention weights in place; rows aren't looked at."""
    anatomy = find_anatomy(model)
    attention = anatomy.attention
    linears = [find_linears(layer) for layer in find_layers(model).layers]
    notes = told_lost([{name: each[name] for name in attention.linears} for each in linears])
    layers = []
    for index in range(anatomy.depth):
        layer = model.get_submodule(anatomy.layer(index))
        pairs = {
            "query_output": (attention.query, attention.output, attention.heads, True),
            "key_value": (attention.key, attention.value, attention.groups, False),
        }
        layers.append(
            {
                name: _replace(stage, layer, first, second, heads, reads)
                for name, (first, second, heads, reads) in pairs.items()
            }
        )
    return Outcome(model, {"form": stage.form, "layers": layers}, (STORED_DENSE, *notes))


def check_ratio(stage: TensorFactorize, anatomy: Anatomy) -> None:
    """Refuse a ratio at which a layer's folded weights, or the SVDs beside them, have no rank."""
    attention = anatomy.attention
    for heads in (attention.heads, attention.groups):
        shape = (anatomy.hidden, attention.head_size, 2, heads)
        matrix = (anatomy.hidden, attention.head_size * heads)
        kept = COSTS[stage.form](shape, stage.parameter_ratio)
        rank_for("attention", matrix, kept / math.prod(shape))


def fold(weight: Tensor, heads: int, reads_heads: bool) -> Array:
    """[H h, D] (or [D, H h] where it reads heads) -> [D, h, H]; fp64."""
    wide = weight.detach().double().cpu()
    per_head = (wide.T if reads_heads else wide).unflatten(0, (heads, -1))
    folded: Array = per_head.permute(2, 1, 0).numpy()
    return folded


def unfold(folded: Array, reads_heads: bool) -> Tensor:
    """The inverse of `fold`."""
    flat = torch.from_numpy(np.ascontiguousarray(folded)).permute(2, 1, 0).flatten(0, 1)
    return flat.T if reads_heads else flat


def tucker(tensor: Array, parameter_ratio: float) -> Decomposed:
    """Factors over D and h shared by all heads and by both weights, with a core for each head."""
    ranks = tucker_ranks(tensor.shape, parameter_ratio)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorly tells of its own future changes
        (core, factors), _ = partial_tucker(
            tensor, rank=[*ranks], modes=[0, 1], init="svd", n_iter_max=50, random_state=0
        )
    made = np.einsum("abpk,da,hb->dhpk", core, factors[0], factors[1])
    return Decomposed(made, tucker_cost(tensor.shape, ranks), (residual(tensor, made),))


def tucker_ranks(shape: tuple[int, ...], parameter_ratio: float) -> tuple[int, int]:
    """Ranks of D and h in proportion to them, the largest within the ratio."""
    width, size, _, _ = shape
    budget = parameter_ratio * math.prod(shape)
    for step in range(1000, 0, -1):
        ranks = (int(width * step / 1000), int(size * step / 1000))
        if min(ranks) and tucker_cost(shape, ranks) <= budget:
            return ranks
    raise _too_little(parameter_ratio)


def tucker_cost(shape: tuple[int, ...], ranks: tuple[int, int]) -> int:
    """Numbers in the two factors and the cores."""
    (width, size, pair, heads), (first, second) = shape, ranks
    return width * first + size * second + first * second * pair * heads


def cp(tensor: Array, parameter_ratio: float, starts: int, seed: int) -> Decomposed:
    """A sum of rank-one tensors by alternating least squares, which is unstable: the best of
    several random starts, without those that come to nothing. BadInput where all do."""
    rank = cp_rank(tensor.shape, parameter_ratio)
    found = []
    for start in range(starts):
        with warnings.catch_warnings(), contextlib.suppress(np.linalg.LinAlgError):
            warnings.simplefilter("ignore")
            factors = parafac(
                tensor,
                rank=rank,
                init="random",
                random_state=seed + start,
                n_iter_max=CP_ITERATIONS,
                tol=1e-7,
            )
            made = tensorly.cp_to_tensor(factors)
            if math.isfinite(left := residual(tensor, made)):
                found.append((left, start, made))
    if not found:
        raise BadInput(
            f"none of {starts} starts of CP ends in numbers", "Use form: tucker, or more starts."
        )
    found.sort(key=lambda each: each[:2])
    return Decomposed(
        found[0][2], rank * sum(tensor.shape), tuple(float(each[0]) for each in found)
    )


def cp_rank(shape: tuple[int, ...], parameter_ratio: float) -> int:
    """As many rank-one tensors as there is room for."""
    rank = int(parameter_ratio * math.prod(shape) / sum(shape))
    if rank == 0:
        raise _too_little(parameter_ratio)
    return rank


FORMS: dict[str, Callable[[Array, TensorFactorize], Decomposed]] = {
    "tucker": lambda tensor, stage: tucker(tensor, stage.parameter_ratio),
    "cp": lambda tensor, stage: cp(tensor, stage.parameter_ratio, stage.starts, stage.seed),
}

COSTS: dict[str, Callable[[tuple[int, ...], float], int]] = {
    "tucker": lambda shape, ratio: tucker_cost(shape, tucker_ranks(shape, ratio)),
    "cp": lambda shape, ratio: cp_rank(shape, ratio) * sum(shape),
}
"""What the factors of a tensor of some shape take, by form."""


def residual(tensor: Array, made: Array) -> float:
    """|T - T'|_F / |T|_F"""
    return float(np.linalg.norm(tensor - made) / np.linalg.norm(tensor))


def svd_residual(matrices: Sequence[Tensor], parameters: int) -> tuple[float, int]:
    """What plain SVDs of the matrices lose at no more parameters; and how many they take."""
    whole = sum(matrix.numel() for matrix in matrices)
    lost = total = 0.0
    count = 0
    for matrix in matrices:
        rank = rank_for("attention", matrix.shape, parameters / whole)
        left, right = factorize_plain(matrix, rank)
        lost += float((matrix - left @ right).square().sum())
        total += float(matrix.square().sum())
        count += rank * sum(matrix.shape)
    return (lost / total) ** 0.5, count


def _replace(
    stage: TensorFactorize, layer: nn.Module, first: str, second: str, heads: int, reads_heads: bool
) -> dict[str, Any]:
    """Decompose two weights together; `reads_heads` says that the second is [D, heads h]."""
    linears = [layer.get_submodule(name) for name in (first, second)]
    weights = [dict(linear.named_parameters())["weight"] for linear in linears]
    reads = [False, reads_heads]
    folds = [fold(weight, heads, each) for weight, each in zip(weights, reads, strict=True)]
    made = FORMS[stage.form](np.stack(folds, axis=2), stage)
    svd_error, svd_parameters = svd_residual(
        [weight.detach().double() for weight in weights], made.parameters
    )
    with torch.no_grad():
        for at, weight in enumerate(weights):
            weight.copy_(unfold(made.tensor[:, :, at], reads[at]))
    return {
        "relative_error": made.residuals[0],
        "parameters": made.parameters,
        "svd_relative_error": svd_error,
        "svd_parameters": svd_parameters,
        "residuals_of_starts": list(made.residuals),
    }


def _too_little(parameter_ratio: float) -> BadInput:
    return BadInput(
        f"parameter_ratio {parameter_ratio} leaves no rank to the folded weights",
        "Ask for more.",
    )
