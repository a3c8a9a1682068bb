"""A stage at several ratios."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from trainer.spec.base import AtLeast, Spec


class Sweep(Spec):
    """One stage at several ratios, each a branch of its own: measured, kept, and never ending the
    chain by its gate. The report draws which of them are worth their bytes."""

    ratios: Annotated[tuple[float, ...], Field(max_length=32), AtLeast(2)]
    """Of sparsity, or of parameters kept; rising."""

    @model_validator(mode="after")
    def _rising_shares(self) -> "Sweep":
        for index, ratio in enumerate(self.ratios):
            if not 0 < ratio < 1:
                raise ValueError(f"ratios[{index}] is {ratio}: give more than 0, less than 1")
        if any(a >= b for a, b in pairwise(self.ratios)):
            raise ValueError("ratios must rise, none of them twice")
        return self
