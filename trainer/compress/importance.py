"""How much each unit of a decoder matters, by its activations or by what its loss would cost.

D width, F feed-forward width, H query heads, G groups, h head size, N tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.activations import observe
from trainer.compress.anatomy import Anatomy
from trainer.compress.likelihood import completion_losses
from trainer.data import TokenRow
from trainer.errors import BadInput


@dataclass(frozen=True)
class Importance:
    """Higher stays longer; fp64. One tensor for each layer, and one for the residual stream."""

    feed_forward: tuple[Tensor, ...]
    """[F] each."""
    heads: tuple[Tensor, ...]
    """[H] each."""
    groups: tuple[Tensor, ...]
    """[G] each."""
    hidden: Tensor
    """[D]"""


def by_activation(model: PreTrainedModel, anatomy: Anatomy, rows: Sequence[TokenRow]) -> Importance:
    """Means over tokens (Minitron, arXiv:2407.14679, section 2.2): |input of down| for units, the
    norm of a head's output for heads, |output of each norm before a block| summed over layers for
    the residual stream; a group counts as the sum of its heads."""
    attention, blocks = anatomy.attention, anatomy.feed_forward
    watched = {"head": model.get_submodule(anatomy.head)}
    for index in range(anatomy.depth):
        for part in (attention.query, attention.output, blocks.up, blocks.down):
            name = f"{anatomy.layer(index)}.{part}"
            watched[name] = model.get_submodule(name)
    sums: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}

    def see(name: str, x: Tensor, mask: Tensor) -> None:
        kept = x[mask].double()
        sums[name] = sums.get(name, 0) + kept.abs().sum(dim=0)
        if name.endswith(attention.output):
            per_head = kept.unflatten(1, (attention.heads, attention.head_size))
            norms[name] = norms.get(name, 0) + per_head.norm(dim=2).sum(dim=0)

    linears = {name: module for name, module in watched.items() if isinstance(module, nn.Linear)}
    observe(model, linears, rows, see, until=linears["head"])
    tokens = sum(len(row.ids) for row in rows)

    def each(found: dict[str, Tensor], part: str) -> tuple[Tensor, ...]:
        return tuple(found[f"{anatomy.layer(i)}.{part}"] / tokens for i in range(anatomy.depth))

    heads = each(norms, attention.output)
    stream = torch.stack([*each(sums, attention.query), *each(sums, blocks.up)]).sum(dim=0)
    return _finite(
        Importance(
            feed_forward=each(sums, blocks.down),
            heads=heads,
            groups=tuple(head.unflatten(0, (attention.groups, -1)).sum(dim=1) for head in heads),
            hidden=stream + sums["head"] / tokens,
        )
    )


def by_taylor(model: PreTrainedModel, anatomy: Anatomy, rows: Sequence[TokenRow]) -> Importance:
    """Sums of |w dL/dw| over all weights that go with a unit (LLM-Pruner, arXiv:2305.11627, eq. 5
    to first order), L the mean loss of the rows' completions."""
    salience = weight_salience(model, rows)
    attention, blocks = anatomy.attention, anatomy.feed_forward

    def outputs(index: int, part: str) -> Tensor:
        name = f"{anatomy.layer(index)}.{part}"
        bias = salience.get(f"{name}.bias")
        rows_of = salience[f"{name}.weight"].sum(dim=1)
        return rows_of if bias is None else rows_of + bias

    def inputs(index: int, part: str) -> Tensor:
        return salience[f"{anatomy.layer(index)}.{part}.weight"].sum(dim=0)

    def per_head(units: Tensor) -> Tensor:
        summed: Tensor = units.unflatten(0, (-1, attention.head_size)).sum(dim=1)
        return summed

    made_by = [part for part in (blocks.gate, blocks.up) if part]
    heads = tuple(
        per_head(outputs(i, attention.query) + inputs(i, attention.output))
        for i in range(anatomy.depth)
    )
    shared = [
        per_head(outputs(i, attention.key) + outputs(i, attention.value))
        for i in range(anatomy.depth)
    ]
    ends = {anatomy.embedding, anatomy.head}
    stream = sum(
        (salience[f"{name}.weight"].sum(dim=0) for name in ends if f"{name}.weight" in salience),
        salience[f"{anatomy.final_norm}.weight"].clone(),
    )
    for i in range(anatomy.depth):
        stream = stream + sum(inputs(i, part) for part in anatomy.readers())
        stream = stream + sum(outputs(i, part) for part in anatomy.writers())
        stream = stream + sum(
            salience[f"{anatomy.layer(i)}.{norm}.weight"] for norm in anatomy.norms
        )
    return _finite(
        Importance(
            feed_forward=tuple(
                torch.stack([outputs(i, part) for part in made_by]).sum(dim=0)
                + inputs(i, blocks.down)
                for i in range(anatomy.depth)
            ),
            heads=heads,
            groups=tuple(
                head.unflatten(0, (attention.groups, -1)).sum(dim=1) + group
                for head, group in zip(heads, shared, strict=True)
            ),
            hidden=stream,
        )
    )


def weight_salience(model: PreTrainedModel, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """|w dL/dw| of each parameter, by name; fp64. A tied weight is there once."""
    parameters = dict(model.named_parameters())
    required = {name: parameter.requires_grad for name, parameter in parameters.items()}
    tokens = sum(row.completion_tokens for row in rows)
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    try:
        for loss, _ in completion_losses(model, rows):
            (loss / tokens).backward()
        return {
            name: (parameter.detach().double() * parameter.grad.double()).abs()
            for name, parameter in parameters.items()
            if parameter.grad is not None
        }
    finally:
        model.zero_grad(set_to_none=True)
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])


IMPORTANCE: dict[str, Callable[[PreTrainedModel, Anatomy, Sequence[TokenRow]], Importance]] = {
    "activation": by_activation,
    "taylor": by_taylor,
}


def _finite(found: Importance) -> Importance:
    for part in (*found.feed_forward, *found.heads, *found.groups, found.hidden):
        if not torch.isfinite(part).all():
            raise BadInput(
                "the model's activations on the calibration rows are not finite",
                "Units can't be ranked by them. Check that the model answers at all, in fp32.",
            )
    return found
