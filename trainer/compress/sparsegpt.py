"""Unstructured and n:m pruning that mends what it removes (SparseGPT, arXiv:2301.00774).

Columns of W [m, n] are frozen from left to right. Removing w_j of a row costs
w_j^2 / [H_j^-1]_11, H_j the part of H = X^T X over columns j and later, and the columns behind it
take up -w_j / [H_j^-1]_11 * [H_j^-1]_1,: (optimal brain surgeon, eqs. 3 and 4). All the H_j^-1
come from one Cholesky factor: with H^-1 = U^T U, U upper, row 1 of H_j^-1 is U_jj U_j,j:.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import check_layers, group_of, keep_in_all, keep_in_rows, masked
from trainer.compress.moments import damped_cholesky, gram_matrices
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.spec import SparseGptPrune


def apply(stage: SparseGptPrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Prune every linear of the decoder layers in place, the first layer first.

    A layer's activations are those that come through the layers already pruned. Statistics that
    aren't positive definite get more damping, which the report names.
    """
    layers = find_layers(model).layers
    check_layers(stage.layer_sparsities, len(layers), "sparsegpt")
    dampings = []
    for index, layer in enumerate(layers):
        linears = find_linears(layer)
        grams = gram_matrices(model, linears, rows, layer)
        factors = {id(gram): inverse_factor(gram, stage.damping) for gram in grams.values()}
        for name, linear in linears.items():
            factor, damping = factors[id(grams[name])]
            dampings.append(damping)
            made = prune(linear.weight.detach().double(), factor, stage, stage.in_layer(index))
            linear.weight.data.copy_(made)
    linears_of = [find_linears(layer) for layer in layers]
    return masked(model, linears_of, damping=stage.damping, largest_damping=max(dampings))


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Upper U [n, n] with U^T U = (gram + damping)^-1; and the damping it took."""
    lower, taken = damped_cholesky(gram, damping)
    inverse = torch.cholesky_inverse(lower)
    return torch.linalg.cholesky(inverse, upper=True), taken


def prune(weight: Tensor, factor: Tensor, stage: SparseGptPrune, sparsity: float) -> Tensor:
    """weight [m, n], factor U [n, n] -> pruned weight [m, n]; fp64."""
    made = weight.clone()
    inputs = made.shape[1]
    for start in range(0, inputs, stage.block):
        part = slice(start, min(start + stage.block, inputs))
        errors = _prune_block(made, factor, part, stage, sparsity)
        made[:, part.stop :] -= errors @ factor[part, part.stop :]
    return made


def _prune_block(
    made: Tensor, factor: Tensor, part: slice, stage: SparseGptPrune, sparsity: float
) -> Tensor:
    """Prune the columns of one block in place; what the columns behind it must take up [m, b]."""
    width = part.stop - part.start
    diagonal = factor.diagonal()
    errors = torch.zeros(len(made), width, dtype=made.dtype, device=made.device)
    step = width
    if stage.pattern != "unstructured":
        step = group_of(stage.pattern, made.shape[1])[1]
    for offset in range(0, width, step):
        group = slice(part.start + offset, min(part.start + offset + step, part.stop))
        scores = made[:, group].square() / diagonal[group].square()
        choose = keep_in_all if stage.pattern == "unstructured" else keep_in_rows
        kept = choose(scores, sparsity, stage.pattern)
        for column in range(group.start, group.stop):
            gone = made[:, column] * ~kept[:, column - group.start]
            error = gone / diagonal[column]
            behind = slice(column, part.stop)
            made[:, behind] -= error[:, None] * factor[column, behind]
            made[:, column] *= kept[:, column - group.start]
            errors[:, column - part.start] = error
    return errors
