"""Milliseconds a row of the ROUGE-L novelty check against a large pool, beside brute force.

The pool's sentences have Zipf-distributed words; half of the questions are sentences of it with a
quarter of their words changed, the hard case: they resemble some and reach the limit or just don't.
Verdicts are compared, row by row, before the figures count.
"""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.result import Result
from prompts.likeness import Likest, RougeIndex, rouge_l

TARGET_MS = 50.0
LIMIT = 0.7
WORDS = 8_000
ROUNDS = 5
"""Rows that brute force answers too: it takes seconds for each."""


def run(quick: bool) -> Result:
    """The 99th percentile at the largest pool; growth over pools."""
    growth = [measure(pool, quick) for pool in ((1_000, 5_000) if quick else (5_000, 50_000))]
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


def measure(pool: int, quick: bool) -> dict[str, float]:
    """Percentiles over questions, and brute force's median on a few of them."""
    generator = np.random.default_rng(0)
    sentences = [sentence(generator) for _ in range(pool)]
    questions = [question(generator, sentences) for _ in range(100 if quick else 300)]
    index = RougeIndex()
    for number, text in enumerate(sentences):
        index.add(str(number), text)
    times, brute = [], []
    for number, text in enumerate(questions):
        begun = time.perf_counter()
        found = index.likest(text, LIMIT)
        times.append(time.perf_counter() - begun)
        if number < ROUNDS:
            begun = time.perf_counter()
            if found != brute_force(sentences, text):
                raise AssertionError("the index and brute force disagree")
            brute.append(time.perf_counter() - begun)
    return {
        "pool": pool,
        "median_ms": 1e3 * float(np.median(times)),
        "p99_ms": 1e3 * float(np.percentile(times, 99)),
        "brute_ms": 1e3 * float(np.median(brute)),
    }


def brute_force(sentences: Sequence[str], text: str) -> Likest | None:
    """The comparison with every sentence."""
    scores = [rouge_l(text, other) for other in sentences]
    best = max(scores)
    return Likest(str(scores.index(best)), best) if best >= LIMIT else None


def sentence(generator: np.random.Generator) -> str:
    """6 to 44 words."""
    return " ".join(words(generator, int(generator.integers(6, 45))))


def question(generator: np.random.Generator, sentences: Sequence[str]) -> str:
    """A new sentence, or one of the pool with a quarter of its words changed."""
    if generator.random() < 0.5:
        return sentence(generator)
    changed = sentences[int(generator.integers(len(sentences)))].split()
    for word in words(generator, len(changed) // 4):
        changed[int(generator.integers(len(changed)))] = word
    return " ".join(changed)


def words(generator: np.random.Generator, count: int) -> list[str]:
    """Words by Zipf's law."""
    ranks = np.exp(generator.random(count) * np.log(WORDS)).astype(int)
    return [f"w{rank}" for rank in ranks]
