"""What a run has seen; part of its checkpoints."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What a run has seen; part of its checkpoints."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Of each measurement `step` and `rows` (`trainer.samples.Sampler.ask`)."""
    tokens: float = 0.0
    """Learnt from so far, on all ranks."""
    seconds: float = 0.0
    """Of the processes before this one, up to the checkpoint that it goes on from."""

    @property
    def best(self) -> int | None:
        """The step of the lowest validation loss, the first of equals; what is no number is never
        low."""
        if not self.validation:
            return None
        return min(self.validation, key=lambda seen: (math.isnan(seen[1]), seen[1]))[0]

    @property
    def since_best(self) -> int:
        """Measurements of the validation loss after its lowest."""
        steps = [step for step, _ in self.validation]
        return len(steps) - 1 - steps.index(self.best) if self.best is not None else 0
