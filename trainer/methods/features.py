"""Losses on hidden states and attention, beside an output objective or alone.

B batch, T tokens, D student's width, D' teacher's width, K kept positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batch import Batch, sees
from trainer.errors import BadInput
from trainer.narrow import NarrowLinear
from trainer.objectives import keep
from trainer.objectives.features import hidden_distance, relation_kl
from trainer.spec.features import FeatureSpec, HiddenStates, Relations
from trainer.student import Look, Projection, Seen

Sums = dict[str, tuple[float, Tensor]]
"""Weight and sum over kept positions, by name."""


@dataclass(frozen=True)
class Features:
    """Feature losses of one student and one teacher."""

    parts: tuple[Callable[[Seen, Seen, Batch], Sums], ...]
    student_look: Look
    teacher_look: Look
    learned: nn.Module | None

    def losses(self, ours: Seen, theirs: Seen, batch: Batch) -> Sums:
        """Of one batch."""
        return {
            name: made for part in self.parts for name, made in part(ours, theirs, batch).items()
        }


def make_features(
    specs: tuple[FeatureSpec, ...], student: PreTrainedModel, teacher: PreTrainedModel
) -> Features:
    """Checks layers and widths: BadInput names what doesn't fit."""
    projections = nn.ModuleList()
    parts, ours, theirs = [], list[Projection](), list[Projection]()
    for index, spec in enumerate(specs):
        name = f"{spec.kind}_{index}" if len(specs) > 1 else spec.kind
        if isinstance(spec, HiddenStates):
            pairs = layer_map(spec, student, teacher)
            maps = nn.ModuleList(_projection(student, teacher) for _ in pairs)
            projections.append(maps)
            parts.append(_hidden(name, spec, pairs, maps))
        else:
            layers = _relation_layers(spec, student, teacher)
            ours += _names(layers[0])
            theirs += _names(layers[1])
            parts.append(_relation(name, spec, layers))
    layers_wanted = any(isinstance(spec, HiddenStates) for spec in specs)
    return Features(
        tuple(parts),
        Look(layers_wanted, tuple(ours)),
        Look(layers_wanted, tuple(theirs)),
        projections if len(projections) else None,
    )


def layer_map(
    spec: HiddenStates, student: PreTrainedModel, teacher: PreTrainedModel
) -> tuple[tuple[int, int], ...]:
    """Pairs of layers; 0 is the embeddings, the last is what the head sees."""
    ours, theirs = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    pairs = spec.layers or tuple((i, round(i * theirs / ours)) for i in range(1, ours + 1))
    for mine, other in pairs:
        if not (0 <= mine <= ours and 0 <= other <= theirs):
            raise BadInput(
                f"features.layers: there is no pair ({mine}, {other})",
                f"The student has layers 0 to {ours}, the teacher 0 to {theirs}.",
            )
    return pairs


def _projection(student: PreTrainedModel, teacher: PreTrainedModel) -> nn.Linear:
    """From the student's width to the teacher's; seeded apart, so that the student's own random
    numbers stay what they are without it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Linear(student.config.hidden_size, teacher.config.hidden_size, bias=False)
    return made.to(device=student.device, dtype=student.dtype)


def _hidden(
    name: str, spec: HiddenStates, pairs: tuple[tuple[int, int], ...], maps: nn.ModuleList
) -> Callable[[Seen, Seen, Batch], Sums]:
    def losses(ours: Seen, theirs: Seen, batch: Batch) -> Sums:
        total = torch.zeros((), device=batch.input_ids.device)
        for (mine, other), project in zip(pairs, maps, strict=True):
            made = project(_kept(ours.layers[mine], batch))
            distance = hidden_distance(made, _kept(theirs.layers[other], batch), spec.distance)
            total = total + (distance * batch.weights).sum()
        return {name: (spec.weight, total / len(pairs))}

    return losses


def _kept(hidden: Tensor, batch: Batch) -> Tensor:
    return keep(hidden, batch.input_ids, batch.completion_mask)[0]


def _relation_layers(
    spec: Relations, student: PreTrainedModel, teacher: PreTrainedModel
) -> tuple[int, int]:
    found = []
    sides = ((student, spec.student_layer, "student"), (teacher, spec.teacher_layer, "teacher"))
    for model, layer, side in sides:
        count = model.config.num_hidden_layers
        if not -count <= layer < count:
            raise BadInput(
                f"features.{side}_layer: there is no layer {layer}", f"It has 0 to {count - 1}."
            )
        _check_heads(spec, model, layer % count, side)
        found.append(layer % count)
    return found[0], found[1]


def _check_heads(spec: Relations, model: PreTrainedModel, layer: int, side: str) -> None:
    for place, name in _names(layer):
        width = _width(model, f"layers.{place}.self_attn.{name}", side)
        if width % spec.heads:
            raise BadInput(
                f"features.heads: {spec.heads} relation heads don't divide the {side}'s widths",
                f"{name} of layer {place} is {width} wide.",
            )


def _width(model: PreTrainedModel, name: str, side: str) -> int:
    """Of a linear, adapted or not: what it makes is looked at, adapters included. Of a factorized
    one, its second factor makes it."""
    modules = dict(model.base_model.named_modules())
    found = modules.get(f"{name}.left", modules.get(name))
    if isinstance(found, BaseTunerLayer):
        found = found.get_base_layer()
    if not isinstance(found, nn.Linear | NarrowLinear):
        raise BadInput(
            f"the {side} keeps its queries, keys and values elsewhere",
            f"It has no plain linear {name}: use hidden features for it.",
        )
    return found.out_features


def _names(layer: int) -> list[Projection]:
    return [(layer, "q_proj"), (layer, "k_proj"), (layer, "v_proj")]


def _relation(
    name: str, spec: Relations, layers: tuple[int, int]
) -> Callable[[Seen, Seen, Batch], Sums]:
    def losses(ours: Seen, theirs: Seen, batch: Batch) -> Sums:
        seen = sees(_segments(batch))
        pairs = zip(_names(layers[0]), _names(layers[1]), strict=True)
        found = [
            relation_kl(ours.projections[mine], theirs.projections[other], spec.heads, seen)
            for mine, other in pairs
        ]
        # Of the positions that predict tokens to be learnt, as every other loss here.
        kept = _kept(torch.stack(found).mean(0).unsqueeze(-1), batch).squeeze(-1)
        return {name: (spec.weight, (kept * batch.weights).sum())}

    return losses


def _segments(batch: Batch) -> Tensor:
    """Padding stands on the right, where no kept position looks."""
    return torch.ones_like(batch.input_ids) if batch.segments is None else batch.segments
