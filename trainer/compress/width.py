"""Structured pruning of units: the same number of them in every layer, so that engines load it.

D width, F feed-forward width, H query heads, G groups, h head size.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from trainer.compress.anatomy import Anatomy, find_anatomy
from trainer.compress.cutting import Kept, cut, fault_of, set_sizes
from trainer.compress.importance import IMPORTANCE, Importance
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import WidthPrune


def apply(stage: WidthPrune, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """An ordinary smaller model of the same architecture. The model given is left as it is.

    Raises BadInput for a layout that isn't known and for sizes that don't fit it.
    """
    anatomy = find_anatomy(model)
    check_sizes(stage, anatomy, model.config)
    importance = IMPORTANCE[stage.importance](model, anatomy, rows)
    kept = choose(stage, anatomy, importance)
    details = {
        "importance": stage.importance,
        "feed_forward": [anatomy.feed_forward.width, len(kept.feed_forward[0])],
        "heads": [anatomy.attention.heads, len(kept.heads[0])],
        "key_value_groups": [anatomy.attention.groups, len(kept.groups[0])],
        "hidden": [anatomy.hidden, len(kept.hidden)],
        "kept_heads": [heads.tolist() for heads in kept.heads],
    }
    return Outcome(cut(model, anatomy, kept), details)


def check_sizes(
    stage: WidthPrune, anatomy: Anatomy, config: PreTrainedConfig, path: str = "width"
) -> None:
    """Refuse to keep more than there is, and sizes that the configuration doesn't take."""
    present = _present(anatomy)
    for name, most in present.items():
        wanted = getattr(stage, name)
        if wanted is not None and wanted > most:
            raise BadInput(
                f"{path}.{name} is {wanted}, but the model has {most}",
                f"Pruning only removes: ask for {most} at most.",
            )
    tried = copy.deepcopy(config)
    fault = _fault(stage, anatomy, tried)
    if fault is None:
        return
    named = [name for name in present if getattr(stage, name) is not None]
    fitting = {name: _near(stage, name, anatomy, tried) for name in named}
    blamed = [name for name in named if fitting[name]] or named
    nearest = " or ".join(f"{name}: {size}" for name in blamed for size in fitting[name])
    raise BadInput(
        f"{path}.{', '.join(blamed)}: a {config.model_type} model can't have these sizes",
        f"{fault} The nearest that fit: {nearest or 'none, with the others as they are'}.",
    )


def resized(stage: WidthPrune, anatomy: Anatomy) -> Anatomy:
    """What the stage leaves."""
    attention = anatomy.attention
    groups = stage.key_value_groups or attention.groups
    heads = groups * (stage.heads_per_group or attention.heads // attention.groups)
    width = stage.feed_forward or anatomy.feed_forward.width
    return anatomy.resized(stage.hidden or anatomy.hidden, width, heads, groups)


def _present(anatomy: Anatomy) -> dict[str, int]:
    attention = anatomy.attention
    return {
        "feed_forward": anatomy.feed_forward.width,
        "key_value_groups": attention.groups,
        "heads_per_group": attention.heads // attention.groups,
        "hidden": anatomy.hidden,
    }


def _fault(stage: WidthPrune, anatomy: Anatomy, tried: PreTrainedConfig) -> str | None:
    set_sizes(tried, resized(stage, anatomy))
    return fault_of(tried)


def _near(stage: WidthPrune, name: str, anatomy: Anatomy, tried: PreTrainedConfig) -> list[int]:
    """The sizes next to what a field asks for, below and above, that fit the rest."""
    asked, most = getattr(stage, name), _present(anatomy)[name]

    def fits(size: int) -> bool:
        return _fault(stage.model_copy(update={name: size}), anatomy, tried) is None

    below = next(filter(fits, range(asked - 1, 0, -1)), None)
    above = next(filter(fits, range(asked + 1, most + 1)), None)
    return [size for size in (below, above) if size is not None]


def choose(stage: WidthPrune, anatomy: Anatomy, importance: Importance) -> Kept:
    """The highest of each: units per layer, whole groups per layer, heads within each group that
    stays, and one set of hidden units for the whole model."""
    attention = anatomy.attention
    per_group = attention.heads // attention.groups
    groups = tuple(
        highest(scores, stage.key_value_groups or attention.groups) for scores in importance.groups
    )
    heads = tuple(
        _heads(scores.unflatten(0, (-1, per_group)), kept, stage.heads_per_group or per_group)
        for scores, kept in zip(importance.heads, groups, strict=True)
    )
    return Kept(
        feed_forward=tuple(
            highest(scores, stage.feed_forward or anatomy.feed_forward.width)
            for scores in importance.feed_forward
        ),
        heads=heads,
        groups=groups,
        hidden=highest(importance.hidden, stage.hidden or anatomy.hidden),
    )


def highest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest, in rising order; of equals the first stays."""
    order = scores.argsort(descending=True, stable=True)
    return order[:count].sort().values


def _heads(scores: Tensor, groups: Tensor, count: int) -> Tensor:
    """scores [G, H / G] -> indices of heads, `count` of each group that stays."""
    per_group = scores.shape[1]
    chosen = [group * per_group + highest(scores[group], count) for group in groups.tolist()]
    return torch.cat(chosen)
