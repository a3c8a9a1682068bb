"""Milliseconds a row of the ROUGE-L novelty check against a large pool, beside brute force.

    python -m benchmarks novelty [--seeds TASKS.jsonl]

A stub teacher writes the pool from seed tasks: those in benchmarks/novelty_tasks.jsonl, or others,
one JSON object with an `instruction` a line. The questions are what it writes next; half of them
are tasks of the pool with a quarter of their words changed, the hard case: they resemble some and
reach the limit or just don't. Every verdict is compared with brute force's, which is written from
the definition and shares no code with the index.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.result import Result
from prompts.likeness import Likest, RougeIndex
from prompts.overlap import words_of

TARGET_MS = 50.0
LIMIT = 0.7
QUESTIONS = 200
TASKS = Path(__file__).with_name("novelty_tasks.jsonl")


def run(quick: bool, seeds: Path = TASKS) -> Result:
    """The 99th percentile at the largest pool; growth over pools."""
    tasks = read_tasks(seeds)
    pools, questions = ((500, 2_000), 40) if quick else ((5_000, 50_000), QUESTIONS)
    growth = [measure(tasks, pool, questions) for pool in pools]
    last = growth[-1]
    return Result(
        name="novelty",
        ours=last["p99_ms"],
        unit="ms a row at the 99th percentile",
        ratio=last["median_ms"] / last["brute_ms"],
        target=f"<= {TARGET_MS:.0f} ms at the 99th percentile, verdicts equal to brute force",
        met=last["p99_ms"] <= TARGET_MS,
        peer=last["brute_ms"],
        growth=growth,
    )


def read_tasks(path: Path) -> list[str]:
    """The instructions of a file of seed tasks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["instruction"]) for line in lines if line.strip()]


def measure(tasks: Sequence[str], pool: int, questions: int) -> dict[str, float]:
    """Percentiles over the questions, wall time and this thread's own; all verdicts compared."""
    teacher = StubTeacher(tasks)
    written = [*tasks, *(teacher.write() for _ in range(pool - len(tasks)))][:pool]
    asked = [teacher.write() if n % 2 else teacher.repeat(written) for n in range(questions)]
    index = RougeIndex()
    for number, text in enumerate(written):
        index.add(str(number), text)
    known = [list(words_of(text)) for text in written]
    wall, busy, brute, rejected = [], [], [], 0
    for text in asked:
        begun, used = time.perf_counter(), time.thread_time()
        found = index.likest(text, LIMIT)
        wall.append(time.perf_counter() - begun)
        busy.append(time.thread_time() - used)
        begun = time.perf_counter()
        if found != brute_force(known, text):
            raise AssertionError(f"the index and brute force disagree on {text!r}: {found}")
        brute.append(time.perf_counter() - begun)
        rejected += found is not None
    return {
        "tasks": len(tasks),
        "pool": pool,
        "questions": questions,
        "not_novel": rejected,
        "median_ms": 1e3 * float(np.median(wall)),
        "p99_ms": 1e3 * float(np.percentile(wall, 99)),
        "p99_cpu_ms": 1e3 * float(np.percentile(busy, 99)),
        "brute_ms": 1e3 * float(np.median(brute)),
    }


class StubTeacher:
    """A STUB: writes tasks out of seed tasks' words. State: its random numbers."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = [task.split() for task in tasks]
        self._words = [word for task in self._tasks for word in task]
        self._random = np.random.default_rng(0)

    def write(self) -> str:
        """The beginning of one task, the end of another, a third of the words others."""
        first, second = (self._tasks[self._below(len(self._tasks))] for _ in range(2))
        whole = first[: 1 + self._below(len(first))] + second[self._below(len(second)) :]
        return self._changed(whole, len(whole) // 3)

    def repeat(self, written: Sequence[str]) -> str:
        """A task that was written before with a quarter of its words changed."""
        words = written[self._below(len(written))].split()
        return self._changed(words, len(words) // 4)

    def _changed(self, words: list[str], count: int) -> str:
        for _ in range(count):
            words[self._below(len(words))] = self._words[self._below(len(self._words))]
        return " ".join(words)

    def _below(self, limit: int) -> int:
        return int(self._random.integers(limit))


def brute_force(pool: Sequence[Sequence[str]], text: str) -> Likest | None:
    """The comparison with every text's words: the highest F-measure, of equals the first."""
    words = list(words_of(text))
    masks: dict[str, int] = {}
    for place, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << place
    best, place = 0.0, -1
    for number, other in enumerate(pool):
        total = len(words) + len(other)
        score = 2.0 * _common(masks, len(words), other) / total if words and other else 0.0
        if score > best:
            best, place = score, number
    return Likest(str(place), best) if best >= LIMIT else None


def _common(masks: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Length of the longest common subsequence: a row of the table is the bits of one number, a
    zero where it grows [Hyyrö 2004]."""
    full = (1 << length) - 1
    row = full
    for word in other:
        met = row & masks.get(word, 0)
        row = ((row + met) | (row - met)) & full
    return length - row.bit_count()
