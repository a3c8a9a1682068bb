"""What a compression method hands back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outcome:
    """The model, and what the method has to say for the report."""

    model: PreTrainedModel
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    save: Callable[[Path], None] | None = None
    """Writes the model to a directory; None where `save_pretrained` does."""
    saved: PreTrainedModel | None = None
    """What the saved one computes, where saving changes the model: that is measured, and told."""
