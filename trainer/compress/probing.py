"""What each linear of a decoder layer does, found by what happens when its output changes.

Names are never looked at: a query moves its own position alone, a value passes through attention
as any linear map does, and so does the ungated half of a feed-forward block.
B batch, T tokens, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.activations import remove, run_until_reached, stopping
from trainer.errors import BadInput

POSITION = 1
"""Of the token whose query, key or value is changed; there are tokens before and after it."""
TOKENS = 5
CHANGED = 1e-6
"""A relative change that is more than nothing: the same kernel on the same numbers gives 0."""
LINEAR = 1e-2
"""How far from an exact negation a linear path's may be, for models in bf16."""


@dataclass(frozen=True)
class Flow:
    """One linear in a forward pass: which tensor it read, and in which order they ran."""

    name: str
    read: int
    """Identity of the input tensor."""


def trace(model: PreTrainedModel, layer: nn.Module) -> list[Flow]:
    """The layer's linears in the order they run; those that read one tensor share its number."""
    linears = {name: m for name, m in layer.named_modules() if isinstance(m, nn.Linear)}
    read: list[tuple[str, Tensor]] = []  # holds the tensors, so that no identity is used twice
    handles = [
        linear.register_forward_pre_hook(_reader(name, read)) for name, linear in linears.items()
    ]
    _run(model, layer, handles)
    return [Flow(name, id(tensor)) for name, tensor in read]


def attention_roles(
    model: PreTrainedModel, layer: nn.Module, readers: list[str], output: str
) -> tuple[str, str, str]:
    """Which of three linears is the query, the key and the value. BadInput where that's unclear."""
    plain = _input_of(model, layer, output, {})
    moved: dict[str, list[bool]] = {}
    for name in readers:
        difference = (_input_of(model, layer, output, {name: _shift_one}) - plain).abs()
        moved[name] = (difference.amax(dim=(0, 2)) > CHANGED * plain.abs().max()).tolist()
    queries = [name for name in readers if not any(moved[name][POSITION + 1 :])]
    values = [name for name in _linear_paths(model, layer, readers, output) if name not in queries]
    if len(queries) != 1 or len(values) != 1 or any(any(m[:POSITION]) for m in moved.values()):
        raise BadInput(
            f"the attention of {type(layer).__name__} was not recognised",
            f"Of {', '.join(readers)} one must change its own position alone (the query; found "
            f"{queries or 'none'}), and one must reach {output} linearly (the value; found "
            f"{values or 'none'}). Only plain causal self-attention can be compressed so.",
        )
    (key,) = (name for name in readers if name not in (*queries, *values))
    return queries[0], key, values[0]


def feed_forward_roles(
    model: PreTrainedModel, layer: nn.Module, readers: list[str], output: str
) -> tuple[str | None, str]:
    """(gate or None, up) of a feed-forward block. BadInput where neither is ungated."""
    if len(readers) == 1:
        return None, readers[0]
    linear = _linear_paths(model, layer, readers, output)
    if not linear:
        raise BadInput(
            f"the feed-forward block of {type(layer).__name__} was not recognised",
            f"One of {', '.join(readers)} must reach {output} linearly, the other through an "
            "activation; neither does.",
        )
    up = linear[-1]  # with no activation at all both do, and either may be called the gate
    (gate,) = (name for name in readers if name != up)
    return gate, up


def _linear_paths(
    model: PreTrainedModel, layer: nn.Module, readers: list[str], output: str
) -> list[str]:
    """Those whose negation negates what `output` reads."""
    plain = _input_of(model, layer, output, {})
    return [
        name
        for name in readers
        if float((_input_of(model, layer, output, {name: torch.neg}) + plain).abs().max())
        < LINEAR * float(plain.abs().max())
    ]


def _shift_one(output: Tensor) -> Tensor:
    """[B, T, D] with one position negated and made large: norms of queries take out a size."""
    changed = output.clone()
    changed[:, POSITION] *= -10
    return changed


def _input_of(
    model: PreTrainedModel,
    layer: nn.Module,
    reader: str,
    changes: Mapping[str, Callable[[Tensor], Tensor]],
) -> Tensor:
    """What `reader` is given, [B, T, n], when the outputs of some linears are changed."""
    seen: list[tuple[str, Tensor]] = []
    handles = [
        layer.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, change=change: change(output)
        )
        for name, change in changes.items()
    ]
    handles.append(layer.get_submodule(reader).register_forward_pre_hook(_reader(reader, seen)))
    _run(model, layer, handles)
    return seen[0][1].float()


def _run(
    model: PreTrainedModel, layer: nn.Module, handles: list[torch.utils.hooks.RemovableHandle]
) -> None:
    # Not token 0: it often is the pad, whose embedding is zero.
    ids = torch.arange(1, TOKENS + 1, device=model.device)[None] % model.config.vocab_size
    handles.append(stopping(layer))
    try:
        run_until_reached(model, ids, torch.ones_like(ids, dtype=torch.bool))
    finally:
        remove(handles)


def _reader(
    name: str, read: list[tuple[str, Tensor]]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append((name, inputs[0]))

    return hook
