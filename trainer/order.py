"""Which rows an optimizer step sees: a pure function of the seed and the step's number.

So a resumed run goes on exactly where it stopped, and neither ranks nor accumulation change
what a step learns from.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW_STEPS = 32
"""Rows of so many steps are sorted by length together: little padding, yet mixed batches."""


class Order:
    """The rows of every step of a run.

    Each epoch is a permutation of all rows, cut into steps whose sizes differ by one at most, so
    no row is left over and no step is tiny. The only state is a memo of the last epoch asked for.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int) -> None:
        if not lengths:
            raise ValueError("no rows to order")
        self._lengths = np.asarray(lengths)
        self._seed = seed
        self.steps_per_epoch = math.ceil(len(lengths) / rows_per_step)
        self._memo: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def rows(self, step: int) -> NDArray[np.int64]:
        """Row numbers of a step, counted from zero over the whole run, shortest row first."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._memo[0] != epoch:
            self._memo = (epoch, self._epoch(epoch))
        return self._memo[1][within]

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        drawn = generator.permutation(len(self._lengths))
        cuts = _cuts(len(drawn), self.steps_per_epoch)
        for first in range(0, self.steps_per_epoch, WINDOW_STEPS):
            last = min(first + WINDOW_STEPS, self.steps_per_epoch)
            window = drawn[cuts[first] : cuts[last]]
            window[:] = window[np.argsort(self._lengths[window], kind="stable")]
        steps = [drawn[cuts[i] : cuts[i + 1]] for i in range(self.steps_per_epoch)]
        return [steps[i] for i in generator.permutation(self.steps_per_epoch)]


def passes(
    rows: NDArray[np.int64], batch_size: int, rank: int, ranks: int
) -> list[NDArray[np.int64]]:
    """One rank's forward passes of a step: as many on every rank, at most batch_size rows each.

    Where a step has fewer rows than ranks, some passes are empty.
    """
    count = math.ceil(len(rows) / (batch_size * ranks))
    parts = np.array_split(rows, count * ranks)
    return [parts[i * ranks + rank] for i in range(count)]


def _cuts(total: int, parts: int) -> list[int]:
    return [total * i // parts for i in range(parts + 1)]
