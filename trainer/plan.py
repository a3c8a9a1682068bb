"""What a run will do, known before its first step, and what each step is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from trainer.batch import Batch, pack, pad, silence
from trainer.data import TokenRow
from trainer.order import Order, passes
from trainer.spec import Optimization

FINAL_RATE = 0.1
"""Where the cosine ends, as a share of the peak."""


@dataclass(frozen=True)
class Plan:
    """Steps, warm-up and order."""

    steps: int
    warmup_steps: int
    order: Order

    @property
    def epochs(self) -> float:
        """Passes over the rows."""
        return self.steps / self.order.steps_per_epoch

    def rate(self, step: int) -> float:
        """Share of the peak rate for a step counted from zero: linear warm-up that doesn't waste
        a step at rate 0, cosine to a tenth."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_plan(rows: tuple[TokenRow, ...], optimization: Optimization, ranks: int = 1) -> Plan:
    """Of a run over these rows."""
    rows_per_step = optimization.batch_size * optimization.accumulation * ranks
    order = Order([len(row.ids) for row in rows], rows_per_step, optimization.seed)
    steps = optimization.max_steps or max(1, round(optimization.epochs * order.steps_per_epoch))
    return Plan(steps, math.ceil(optimization.warmup_ratio * steps), order)


class Steps(Dataset[list[Batch]]):
    """Item s is this rank's forward passes of optimizer step s."""

    def __init__(
        self,
        rows: tuple[TokenRow, ...],
        plan: Plan,
        optimization: Optimization,
        rank: int,
        ranks: int,
    ) -> None:
        self._rows, self._plan = rows, plan
        self._batch_size, self._rank, self._ranks = optimization.batch_size, rank, ranks
        self._lay = layout(optimization)

    def __len__(self) -> int:
        return self._plan.steps

    def __getitem__(self, step: int) -> list[Batch]:
        numbers = self._plan.order.rows(step)
        parts = passes(numbers, self._batch_size, self._rank, self._ranks)
        return [lay_out(self._rows, part, numbers[0], self._lay) for part in parts]


Layout = Callable[[list[TokenRow]], Batch]


def layout(optimization: Optimization) -> Layout:
    """Padded, or packed."""
    if optimization.packing:
        return lambda rows: pack(rows, optimization.max_length)
    return pad


def lay_out(
    rows: tuple[TokenRow, ...] | list[TokenRow],
    part: NDArray[np.int64],
    stand_in: int,
    lay: Layout,
) -> Batch:
    """A rank without rows takes part with one row of which no token counts."""
    if len(part):
        return lay([rows[number] for number in part])
    return silence(lay([rows[stand_in]]))
