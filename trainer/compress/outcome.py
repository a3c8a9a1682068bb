"""What a compression method hands back."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel


@dataclass(frozen=True)
class Outcome:
    """The model, and what the method has to say for the report."""

    model: PreTrainedModel
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
