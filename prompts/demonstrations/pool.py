"""The pool: labelled examples of the train split, by group."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prompts.overlap import EvaluationSet
from prompts.record import Seed
from prompts.spec import CotBuild, Shots
from prompts.split import input_key, split_of
from prompts.template import Template, compile_template
from prompts.verify import as_text

LABEL = "output"
"""The label of an in-context seed; a seed with one can be a demonstration."""

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""N texts -> [N, D]."""


@dataclass(frozen=True)
class Pool:
    """The demonstrations of a build: the train split's, by group."""

    entries: tuple[Seed, ...]
    keys: tuple[str, ...]
    """Input keys of the entries: no query may meet itself among its demonstrations."""
    groups: dict[str, tuple[int, ...]] = field(repr=False)
    """Group -> indexes of its entries; without `group_by` all are in one."""
    texts: tuple[str, ...] = ()
    """What a query is compared with: the template's fields of each entry."""
    labels: tuple[str, ...] = ()
    embed: Embed | None = None
    contaminated: int = 0
    """Labelled seeds left out because an evaluation set holds them."""
    indexes: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Search indexes of groups, made when a query first asks for one."""


def make_pool(
    spec: Shots,
    seeds: Iterable[Seed],
    evaluation: Sequence[EvaluationSet] = (),
    embed: Embed | None = None,
) -> Pool:
    """Keeps the labelled seeds of the train split that no evaluation set holds."""
    template = compile_template(spec.template, demonstrations=True)
    label = label_field(spec)
    usable: list[tuple[Seed, str, str]] = []
    contaminated = 0
    for seed in seeds:
        key = input_key(template, seed)
        if seed.get(label) is None or split_of(key, spec.split) != "train":
            continue
        shown = shown_texts(template, seed)
        if any(known.find_row(seed, shown) is not None for known in evaluation):
            contaminated += 1
        else:
            usable.append((seed, key, "\n".join(shown)))
    groups: dict[str, list[int]] = {}
    for index, (seed, _, _) in enumerate(usable):
        groups.setdefault(group_of(spec, seed), []).append(index)
    return Pool(
        entries=tuple(_shown(label, template, seed) for seed, _, _ in usable),
        keys=tuple(key for _, key, _ in usable),
        groups={name: tuple(indexes) for name, indexes in groups.items()},
        texts=tuple(text for _, _, text in usable),
        labels=tuple(as_text(seed[label]) for seed, _, _ in usable),
        embed=embed,
        contaminated=contaminated,
    )


def label_field(spec: Shots) -> str:
    """The field that makes a seed a demonstration."""
    return spec.gold_field if isinstance(spec, CotBuild) else LABEL


def query_text(template: Template, seed: Seed) -> str:
    """The fields of a seed that its prompt shows, as one text."""
    return "\n".join(shown_texts(template, seed))


def shown_texts(template: Template, seed: Seed) -> list[str]:
    """The fields of a seed that its prompt shows, by their names."""
    values = (seed.get(name) for name in sorted(template.fields))
    return [as_text(value) for value in values if value is not None]


def group_of(spec: Shots, seed: Seed) -> str:
    """The name of a seed's group; one for all without `group_by`."""
    if spec.group_by is None:
        return ""
    return json.dumps(seed.get(spec.group_by), sort_keys=True, ensure_ascii=False)


def _shown(label: str, template: Template, seed: Seed) -> dict[str, Any]:
    if not template.demonstration_fields:
        return dict(seed)
    kept = {"id", label, *template.demonstration_fields}
    return {name: value for name, value in seed.items() if name in kept}
