"""Demonstrations: which labelled examples stand before a query."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from prompts.record import Seed
from prompts.spec import IclBuild
from prompts.split import input_key, split_of
from prompts.template import Template, compile_template

LABEL = "output"
"""A seed with this field can be a demonstration."""


@dataclass(frozen=True)
class Pool:
    """The demonstrations of a build: the train split's, by group."""

    entries: tuple[Seed, ...]
    keys: tuple[str, ...]
    """Input keys of the entries: no query may meet itself among its demonstrations."""
    groups: dict[str, tuple[int, ...]] = field(repr=False)
    """Group -> indexes of its entries; without `group_by` all are in one."""


Selector = Callable[[Pool, IclBuild, Seed, str], tuple[Seed, ...]]
"""(pool, spec, query, the query's input key) -> demonstrations, fewer if the pool has too few."""


def make_pool(spec: IclBuild, seeds: Iterable[Seed]) -> Pool:
    """Keeps the labelled seeds of the train split, whatever else `seeds` holds."""
    template = compile_template(spec.template, demonstrations=True)
    usable = [
        (seed, key)
        for seed in seeds
        if seed.get(LABEL) is not None
        and split_of(key := input_key(template, seed), spec.split) == "train"
    ]
    groups: dict[str, list[int]] = {}
    for index, (seed, _) in enumerate(usable):
        groups.setdefault(group_of(spec, seed), []).append(index)
    return Pool(
        entries=tuple(_shown(spec, template, seed) for seed, _ in usable),
        keys=tuple(key for _, key in usable),
        groups={name: tuple(indexes) for name, indexes in groups.items()},
    )


def choose(pool: Pool, spec: IclBuild, query: Seed, key: str) -> tuple[Seed, ...]:
    """The demonstrations for `query`, whose input key is `key`; fewer if the pool has too few."""
    return SELECTORS[spec.selector](pool, spec, query, key)


def random_demonstrations(pool: Pool, spec: IclBuild, query: Seed, key: str) -> tuple[Seed, ...]:
    """Drawn without replacement; a function of `selector_seed` and the query's id."""
    source = sha256(f"{spec.selector_seed}\n{query['id']}".encode()).digest()
    indexes = pool.groups.get(group_of(spec, query), ())
    chosen: list[Seed] = []
    for index in _shuffled(indexes, Random(int.from_bytes(source, "big"))):
        if len(chosen) == spec.demonstrations:
            break
        if pool.entries[index]["id"] != query["id"] and pool.keys[index] != key:
            chosen.append(pool.entries[index])
    return tuple(chosen)


SELECTORS: dict[str, Selector] = {"random": random_demonstrations}


def group_of(spec: IclBuild, seed: Seed) -> str:
    """The name of a seed's group; one for all without `group_by`."""
    if spec.group_by is None:
        return ""
    return json.dumps(seed.get(spec.group_by), sort_keys=True, ensure_ascii=False)


def _shown(spec: IclBuild, template: Template, seed: Seed) -> dict[str, Any]:
    if not template.demonstration_fields:
        return dict(seed)
    kept = {"id", LABEL, *template.demonstration_fields}
    return {name: value for name, value in seed.items() if name in kept}


def _shuffled(indexes: tuple[int, ...], generator: Random) -> Iterator[int]:
    """A lazy Fisher-Yates shuffle: a few draws from a large pool cost a few steps."""
    moved: dict[int, int] = {}
    for place in range(len(indexes)):
        other = generator.randrange(place, len(indexes))
        yield indexes[moved.get(other, other)]
        moved[other] = moved.get(place, place)
