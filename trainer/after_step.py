"""What happens between an optimizer step and its checkpoint."""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import TrainerCallback

from trainer.stop import Stop


class AfterStep(TrainerCallback):
    """The caller's own correction of the weights, and the end of the run where one was asked for,
    on every rank at once: `total` adds up over ranks."""

    def __init__(
        self,
        model: nn.Module,
        stop: Stop,
        total: Callable[[float], float],
        correct: Callable[[nn.Module], None] | None,
    ) -> None:
        self._model, self._stop, self._total, self._correct = model, stop, total, correct

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        if self._correct is not None:
            self._correct(self._model)
        if self._total(float(self._stop.asked)) > 0:
            control.should_save = True
            control.should_training_stop = True
        return control
