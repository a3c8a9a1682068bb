"""Selectors: a query in, indexes of the pool out, the best first.

All are lazy and none looks at anything but its arguments: the same pool and query give the same
demonstrations in any process.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from random import Random
from typing import Any

import numpy as np

from prompts.demonstrations.pool import Pool, Vectors, group_of
from prompts.overlap import words_of
from prompts.record import Seed
from prompts.spec import Shots
from prompts.spec.selectors import MmrSelector

MMR_CANDIDATES = 1000
"""MMR looks at the so many most similar ones."""


@dataclass(frozen=True)
class Query:
    """Whom demonstrations are for."""

    spec: Shots
    seed: Seed
    key: str
    """Its input key."""
    text: str
    """What it is compared by."""

    @property
    def group(self) -> str:
        return group_of(self.spec, self.seed)

    def allows(self, pool: Pool, index: int) -> bool:
        """Whether an entry is not the query itself, by id or by input."""
        return pool.entries[index]["id"] != self.seed["id"] and pool.keys[index] != self.key

    def generator(self, use: str = "") -> Random:
        """Random numbers of this row; of its group, where demonstrations are fixed for groups."""
        whose = f"\x00{self.group}" if self.spec.fixed == "per_group" else self.seed["id"]
        source = sha256(f"{self.spec.selector_seed}\n{whose}{use}".encode()).digest()
        return Random(int.from_bytes(source, "big"))


Selector = Callable[[Pool, Query], Iterator[int]]
"""(pool, query) -> indexes of entries, the best first; the query itself may be among them."""


def by_chance(pool: Pool, query: Query) -> Iterator[int]:
    """Drawn without replacement."""
    return _shuffled(pool.groups.get(query.group, ()), query.generator())


def by_label(pool: Pool, query: Query) -> Iterator[int]:
    """Drawn without replacement from each label in turn, the labels in random order."""
    generator, group = query.generator(), query.group
    labels: dict[str, list[int]] = _cached(pool, f"labels {group}", lambda: _labels(pool, group))
    names = sorted(labels)
    generator.shuffle(names)
    draws = [_shuffled(labels[name], generator) for name in names]
    while draws:
        left = []
        for draw in draws:
            index = next(draw, None)
            if index is not None:
                yield index
                left.append(draw)
        draws = left


def by_words(pool: Pool, query: Query) -> Iterator[int]:
    """The highest BM25 score first; of equals, what comes first in the pool. Those that share no
    word come last, in random order: the pool's would show every such row the same few."""
    group = query.group
    indexes = pool.groups.get(group, ())
    if not indexes:
        return iter(())
    index = _cached(pool, f"bm25 {group}", lambda: _bm25(pool, indexes))
    known = index.vocab_dict if index is not None else {}
    words = [word for word in _words(query.text) if word in known]
    scores = index.get_scores(words) if words else np.zeros(len(indexes), np.float32)
    order, alike = np.argsort(-scores, kind="stable"), int((scores > 0).sum())
    strange = [indexes[place] for place in order[alike:]]
    return chain(
        (indexes[place] for place in order[:alike]), _shuffled(strange, query.generator("bm25"))
    )


def by_embedding(pool: Pool, query: Query) -> Iterator[int]:
    """The highest cosine first; of equals, what comes first in the pool."""
    indexes, similar, _ = _similarities(pool, query)
    return (indexes[place] for place in np.argsort(-similar, kind="stable"))


def by_margin(pool: Pool, query: Query) -> Iterator[int]:
    """Maximal marginal relevance, greedily: λ·cos(query, d) − (1−λ)·max cos(d, chosen)."""
    selector = query.spec.selector
    assert isinstance(selector, MmrSelector)
    relevance = selector.relevance
    indexes, similar, vectors = _similarities(pool, query)
    best = np.argsort(-similar, kind="stable")
    allowed = [place for place in best if query.allows(pool, indexes[place])][:MMR_CANDIDATES]
    left = np.array(allowed, dtype=np.int64)
    nearest = np.full(len(left), -np.inf, np.float32)
    while len(left):
        apart = np.where(np.isinf(nearest), 0, nearest)
        chosen = int(np.argmax(relevance * similar[left] - (1 - relevance) * apart))
        yield indexes[left[chosen]]
        nearest = np.maximum(nearest, vectors[left] @ vectors[left[chosen]])
        left, nearest = np.delete(left, chosen), np.delete(nearest, chosen)


SELECTORS: dict[str, Selector] = {
    "random": by_chance,
    "label_balanced": by_label,
    "bm25": by_words,
    "embedding": by_embedding,
    "mmr": by_margin,
}


def _shuffled(indexes: Sequence[int], generator: Random) -> Iterator[int]:
    """A lazy Fisher-Yates shuffle: a few draws from a large pool cost a few steps."""
    moved: dict[int, int] = {}
    for place in range(len(indexes)):
        other = generator.randrange(place, len(indexes))
        yield indexes[moved.get(other, other)]
        moved[other] = moved.get(place, place)


def _labels(pool: Pool, group: str) -> dict[str, list[int]]:
    labels: dict[str, list[int]] = {}
    for index in pool.groups.get(group, ()):
        labels.setdefault(pool.labels[index], []).append(index)
    return labels


def _bm25(pool: Pool, indexes: Sequence[int]) -> Any:
    """None where no entry holds a word."""
    import bm25s  # Late: the service checks builds and never selects.

    words = [_words(pool.texts[place]) for place in indexes]
    if not any(words):
        return None
    index = bm25s.BM25(dtype="float64")
    index.index(words, show_progress=False)
    return index


def _words(text: str) -> list[str]:
    return list(words_of(text))


def _similarities(pool: Pool, query: Query) -> tuple[tuple[int, ...], Vectors, Vectors]:
    """Indexes of the query's group, their cosines with it, their unit vectors."""
    if pool.embed is None:
        raise ValueError(f"selector {query.spec.selector.kind!r} needs embeddings")
    embed, indexes = pool.embed, pool.groups.get(query.group, ())
    if not indexes:
        return (), np.zeros(0, np.float32), np.zeros((0, 1), np.float32)
    vectors = _cached(
        pool, f"vectors {query.group}", lambda: _unit(embed([pool.texts[i] for i in indexes]))
    )
    return indexes, vectors @ _unit(embed([query.text]))[0], vectors


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
    return unit


def _cached(pool: Pool, name: str, make: Callable[[], Any]) -> Any:
    if name not in pool.indexes:
        pool.indexes[name] = make()
    return pool.indexes[name]
