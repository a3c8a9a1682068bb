"""Unstructured and n:m pruning by |W| alone: the floor that other methods must beat."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import check_layers, keep_in_all, masked
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.spec import MagnitudePrune


def apply(stage: MagnitudePrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Prune every linear of the decoder layers in place, each on its own; rows aren't looked at."""
    layers = find_layers(model).layers
    check_layers(stage.layer_sparsities, len(layers), "magnitude")
    for index, layer in enumerate(layers):
        for linear in find_linears(layer).values():
            scores = linear.weight.detach().double().abs()
            linear.weight.data.mul_(keep_in_all(scores, stage.in_layer(index), stage.pattern))
    return masked(model, [find_linears(layer) for layer in layers])
