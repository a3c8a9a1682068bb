"""Structured pruning of whole decoder layers: by block influence (ShortGPT, arXiv:2403.03853), or
by the loss of the model without the layer (Shortened LLaMA, arXiv:2402.02834)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from trainer.compress.activations import batches, remove, run_until_reached
from trainer.compress.layout import find_layers
from trainer.compress.likelihood import mean_loss
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import DepthPrune

PER_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""Fields of configurations that hold one value for each layer."""


def apply(stage: DepthPrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Remove the layers of least influence in place. Refuses to remove them all."""
    count = len(find_layers(model).layers)
    if stage.layers >= count:
        raise BadInput(
            f"depth pruning would remove {stage.layers} of {count} layers",
            f"At least one must stay: ask for {count - 1} at most.",
        )
    scores = IMPORTANCE[stage.importance](model, rows)
    if not all(map(math.isfinite, scores)):
        raise BadInput(
            "the model's activations on the calibration rows are not finite",
            "Layers can't be ranked by them. Check that the model answers at all, in fp32.",
        )
    removed = sorted(range(count), key=lambda index: (scores[index], index))[: stage.layers]
    remove_layers(model, removed)
    return Outcome(model, {TOLD[stage.importance]: scores, "removed_layers": sorted(removed)})


def block_influence(model: PreTrainedModel, rows: Sequence[TokenRow]) -> list[float]:
    """1 - mean over tokens of cos(x_in, x_out), for each decoder layer (eq. 1)."""
    layers = find_layers(model).layers
    sums = torch.zeros(len(layers), dtype=torch.float64)
    current: list[Tensor] = []

    def watch(index: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            here = F.cosine_similarity(before.double(), after.double(), dim=-1)[current[0]]
            sums[index] += here.sum().cpu()

        return hook

    handles = [
        layer.register_forward_hook(watch(index), with_kwargs=True)
        for index, layer in enumerate(layers)
    ]
    tokens = 0
    try:
        for ids, mask in batches(rows, model.device):
            current[:] = [mask]
            tokens += int(mask.sum())
            run_until_reached(model, ids, mask)
    finally:
        remove(handles)
    return [float(value) for value in 1 - sums / tokens]


def log_perplexity_without(model: PreTrainedModel, rows: Sequence[TokenRow]) -> list[float]:
    """The completions' nats per token with each decoder layer left out in turn, the others in
    place: perplexity, their exponential, ranks layers alike, but may be beyond any number."""

    def skip(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return (before, *output[1:]) if isinstance(output, tuple) else before

    found = []
    for layer in find_layers(model).layers:
        handle = layer.register_forward_hook(skip, with_kwargs=True)
        try:
            found.append(mean_loss(model, rows))
        finally:
            handle.remove()
    return found


IMPORTANCE: dict[str, Callable[[PreTrainedModel, Sequence[TokenRow]], list[float]]] = {
    "block_influence": block_influence,
    "perplexity": log_perplexity_without,
}
TOLD = {"block_influence": "block_influence", "perplexity": "log_perplexity"}
"""What the report calls each one's scores."""


def remove_layers(model: PreTrainedModel, removed: Sequence[int]) -> None:
    """Take layers out in place: modules, their numbers, and what the configuration says of them."""
    layout = find_layers(model)
    kept = [index for index in range(len(layout.layers)) if index not in set(removed)]
    parent, _, leaf = layout.name.rpartition(".")
    layers = nn.ModuleList([layout.layers[index] for index in kept])
    setattr(model.get_submodule(parent), leaf, layers)
    for index, layer in enumerate(layers):
        _renumber(layer, index)
    _rewrite(model.config.get_text_config(), kept, leaf)


def _renumber(layer: nn.Module, index: int) -> None:
    """The key-value cache is addressed by `layer_idx`."""
    for module in layer.modules():
        if "layer_idx" in vars(module):
            setattr(module, "layer_idx", index)  # noqa: B010  # a plain int, no module


def _rewrite(config: PreTrainedConfig, kept: Sequence[int], leaf: str) -> None:
    values = config.to_dict()
    before = values["num_hidden_layers"]
    for name in PER_LAYER:
        if isinstance(values.get(name), list | tuple) and len(values[name]) == before:
            setattr(config, name, [values[name][index] for index in kept])
    if values.get("ranks"):
        config.ranks = _renumber_ranks(values["ranks"], kept, leaf)
    if values.get("max_window_layers") is not None:  # Qwen's: of which layer on windows slide
        gone = set(range(before)) - set(kept)
        first = values["max_window_layers"]
        config.max_window_layers = first - sum(index < first for index in gone)
    config.num_hidden_layers = len(kept)


def _renumber_ranks(ranks: dict[str, int], kept: Sequence[int], leaf: str) -> dict[str, int]:
    """Of a model factorized before: `layers.3.mlp.up_proj` -> `layers.2.mlp.up_proj`."""
    renumbered = {}
    for name, rank in ranks.items():
        index, _, rest = name.removeprefix(f"{leaf}.").partition(".")
        if int(index) in kept:
            renumbered[f"{leaf}.{list(kept).index(int(index))}.{rest}"] = rank
    return renumbered
