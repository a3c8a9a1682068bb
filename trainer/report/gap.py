"""What measured accuracies say together: their difference, and the share of a gap closed."""

import math
import random
from collections.abc import Sequence
from functools import lru_cache

from prompts.record import Frozen
from trainer.measurement import Accuracy

DRAWS = 5_000
"""Of each accuracy; an interval's ends then move by a twentieth of their standard error from one
choice of random numbers to another."""
TAIL = 0.025


class Difference(Frozen):
    """One share minus another, both 0..1, with its 95% interval."""

    share: float
    low: float
    high: float


class GapClosed(Frozen):
    """(student - base) / (teacher - base): 0 at the base, 1 at the teacher, more above it."""

    share: float | None
    low: float | None = None
    high: float | None = None
    why: str | None = None
    """Why a figure is None."""


def difference(after: Accuracy, before: Accuracy) -> Difference:
    """Newcombe's hybrid score interval for independent shares (1998, method 10).

    It stays inside -1..1 and doesn't collapse at 0 or n right answers. Both models answer the same
    rows, which independence ignores; where they tend to fail on the same rows it is too wide.
    """
    share = after.share - before.share
    below = math.hypot(after.share - after.low, before.high - before.share)
    above = math.hypot(after.high - after.share, before.share - before.low)
    return Difference(share=share, low=share - below, high=share + above)


def mean_difference(after: Sequence[Accuracy], before: Sequence[Accuracy]) -> Difference:
    """Of the means over skills (given in one order), each skill's interval by `difference`: the
    distances to their ends add up as those of independent figures (Zou and Donner, 2008)."""
    each = [difference(*pair) for pair in zip(after, before, strict=True)]
    share, count = _mean(after) - _mean(before), len(each)
    below = math.hypot(*(one.share - one.low for one in each)) / count
    above = math.hypot(*(one.high - one.share for one in each)) / count
    return Difference(share=share, low=share - below, high=share + above)


def gap_closed(
    student: Sequence[Accuracy], base: Sequence[Accuracy], teacher: Sequence[Accuracy]
) -> GapClosed:
    """The share of the gap closed, over the mean of one or several skills (given in one order).

    The interval takes equal tails of draws from each accuracy's Jeffreys posterior,
    Beta(correct + 1/2, n - correct + 1/2). A ratio's delta method would need a normal quotient and
    gives zero variance at 0 or n right answers. Where the teacher's lead itself is in doubt at 95%,
    the ratio has no bounded interval, and none is given.
    """
    lead = _mean(teacher) - _mean(base)
    if lead <= 0:
        return GapClosed(share=None, why="the teacher is no better than the base: no gap to close")
    share = (_mean(student) - _mean(base)) / lead
    low, high = _interval(student, base, teacher)
    if low is None or high is None:
        return GapClosed(share=share, why="the teacher's lead is within chance: no interval")
    return GapClosed(share=share, low=low, high=high)


def _interval(
    student: Sequence[Accuracy], base: Sequence[Accuracy], teacher: Sequence[Accuracy]
) -> tuple[float | None, float | None]:
    drawn = zip(_draws(student, "s"), _draws(base, "b"), _draws(teacher, "t"), strict=True)
    ratios = sorted((made - low) / (high - low) for made, low, high in drawn if high > low)
    if len(ratios) < DRAWS * (1 - TAIL):
        return None, None
    tail = int(len(ratios) * TAIL)
    return ratios[tail], ratios[-1 - tail]


def _draws(skills: Sequence[Accuracy], role: str) -> list[float]:
    """Draws of the mean over skills, each skill and role from random numbers of its own."""
    each = [
        _posterior(skill.correct, skill.n, f"{role}{place}") for place, skill in enumerate(skills)
    ]
    return [sum(draws) / len(draws) for draws in zip(*each, strict=True)]


@lru_cache(maxsize=256)
def _posterior(correct: int, n: int, seed: str) -> tuple[float, ...]:
    # Seeded: the same counts give the same page.
    generator = random.Random(seed)
    return tuple(generator.betavariate(correct + 0.5, n - correct + 0.5) for _ in range(DRAWS))


def _mean(skills: Sequence[Accuracy]) -> float:
    return sum(skill.share for skill in skills) / len(skills)
