"""The pool of tasks that self-instruct shows and compares with; frozen while a round runs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.likeness import Likest, RougeIndex
from prompts.record import Record, Seed


@dataclass
class TaskPool:
    """Seed tasks and the novel ones of earlier rounds, in order. State: grows between rounds."""

    limit: float
    """ROUGE-L from which a task is no news."""
    seeds: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    _index: RougeIndex = field(default_factory=RougeIndex)

    def add_seed(self, seed: Seed) -> None:
        """One of the tasks to begin with: never refused."""
        self.seeds.append(str(seed["instruction"]))
        self._index.add(seed["id"], self.seeds[-1])

    def add(self, row: str, instruction: str) -> Likest | None:
        """Takes a written task in if it is novel; otherwise what it is like."""
        found = self.likest(instruction)
        if found is None:
            self.written.append(instruction)
            self._index.add(row, instruction)
        return found

    def likest(self, instruction: str) -> Likest | None:
        """The task that this one is too much like; None if it is novel."""
        return self._index.likest(instruction, self.limit)


RoundPools = Callable[[int], TaskPool]
"""The pool as the rounds before a round (from 0) left it."""


def task_of(row: Record | Mapping[str, Any]) -> str:
    """The instruction that a row of a self-instruct build was written as."""
    seed = row.seed if isinstance(row, Record) else row["seed"]
    return str(json.loads(seed)["instruction"])


def make_pool(limit: float, seeds: Iterable[Seed], records: Iterable[Record]) -> TaskPool:
    """The pool after these records, given in input order; the same for the same ones."""
    pool = TaskPool(limit)
    for seed in seeds:
        pool.add_seed(seed)
    for record in records:
        pool.add(record.id, task_of(record))
    return pool


def drawn(texts: Sequence[str], count: int, places: Iterable[int]) -> list[str]:
    """`count` of the texts, by places that may lie beyond the end; none twice."""
    if not texts:
        return []
    chosen: dict[int, str] = {}
    for place in places:
        if len(chosen) == min(count, len(texts)):
            break
        at = place % len(texts)
        while at in chosen:
            at = (at + 1) % len(texts)
        chosen[at] = texts[at]
    return list(chosen.values())
