"""Unstructured and n:m pruning by weights and activations (Wanda, arXiv:2306.11695).

m outputs, n inputs of a linear; N tokens.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.activations import observe
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import check_layers, keep_in_rows, masked
from trainer.compress.moments import check_finite
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.spec import WandaPrune


def apply(stage: WandaPrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Prune every linear of the decoder layers in place, the first layer first.

    A layer's activations are those that come through the layers already pruned. Embeddings and
    head stay whole. Raises BadInput where an n:m pattern doesn't fit a linear.
    """
    layers = find_layers(model).layers
    check_layers(stage.layer_sparsities, len(layers), "wanda")
    for index, layer in enumerate(layers):
        linears = find_linears(layer)
        squares: dict[str, Tensor] = {}

        def see(name: str, x: Tensor, mask: Tensor, squares: dict[str, Tensor] = squares) -> None:
            here = x[mask].double().square().sum(dim=0)
            squares[name] = squares[name] + here if name in squares else here

        observe(model, linears, rows, see, until=layer)
        for name, linear in linears.items():
            check_finite(name, squares[name])
            scores = importance(linear.weight, squares[name].sqrt())
            linear.weight.data.mul_(keep_in_rows(scores, stage.in_layer(index), stage.pattern))
    return masked(model, [find_linears(layer) for layer in layers])


def importance(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| * ||x_j||_2 (eq. 1): weight [m, n], norms [n] over all tokens -> [m, n]."""
    return weight.detach().double().abs() * norms.double()
