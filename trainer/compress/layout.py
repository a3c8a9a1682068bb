"""Where a decoder keeps its layers and their linears, found from the modules themselves."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from trainer.errors import BadInput


@dataclass(frozen=True)
class Layout:
    """The list of decoder layers and its name in the model (`model.layers`)."""

    name: str
    layers: nn.ModuleList


def find_layers(model: PreTrainedModel) -> Layout:
    """The outermost list of modules as long as the configuration says there are layers.

    Raises BadInput where there is none, or more than one.
    """
    wanted = model.config.get_text_config().num_hidden_layers
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    found = [
        Layout(name, m)
        for name, m in lists.items()
        if len(m) == wanted and not any(name.startswith(f"{other}.") for other in lists)
    ]
    if len(found) != 1:
        raise BadInput(
            f"the layers of {type(model).__name__} were not found",
            f"Looked for one list of {wanted} modules (num_hidden_layers); found "
            f"{[layout.name for layout in found] or 'none'}. Only decoders with one such list "
            "can be compressed.",
        )
    return found[0]


def find_linears(layer: nn.Module) -> dict[str, nn.Linear]:
    """Every linear of a decoder layer by its name within the layer."""
    linears = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear)}
    if not linears:
        raise BadInput(
            f"{type(layer).__name__} holds no nn.Linear",
            "Its weights are kept in some other kind of module (packed or quantized ones, say), "
            "which can't be compressed again.",
        )
    return linears


def pick_linears(layer: nn.Module, targets: Iterable[str]) -> dict[str, nn.Linear]:
    """The linears of a layer whose last name is among `targets`.

    Raises BadInput that names each target which the layer lacks.
    """
    linears = find_linears(layer)
    picked = {name: m for name, m in linears.items() if name.rpartition(".")[2] in set(targets)}
    missing = set(targets) - {name.rpartition(".")[2] for name in picked}
    if missing:
        raise BadInput(
            f"{type(layer).__name__} has no linear named {', '.join(sorted(missing))}",
            f"Its linears are {', '.join(sorted(linears))}. Change the stage's targets.",
        )
    return picked
