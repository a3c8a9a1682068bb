"""What a rescore build asks for."""

from typing import Literal

from pydantic import model_validator

from prompts.fields import FieldError
from prompts.spec.common import Build
from prompts.spec.signal import Signal

UNASKED = (
    "teachers",
    "columns",
    "incremental",
    "system",
    "turns",
    "sampling",
    "split",
    "checks",
)
"""Fields that shape a new row. Rows that are rescored stand as they are."""


class RescoreBuild(Build):
    """The teacher's signal for the rows that a dataset has already: nothing is written anew."""

    kind: Literal["rescore"]
    signal: Signal
    """What is kept of the teacher's distribution; `seeds` names the dataset whose accepted rows
    are scored."""
    in_process: bool = False
    """The worker loads the teacher's weights (its registration's `model`) and asks no server, which
    need not be up. `signal.sampled` needs it, and `signal.top_k` may then be as large as you like.
    Holds the device while it runs."""
    deduplicate: bool = False
    """The rows were looked through when they were built; true looks again."""

    @model_validator(mode="after")
    def _leaves_rows_as_they_are(self) -> "RescoreBuild":
        fields = type(self).model_fields
        shaped = [
            name
            for name in UNASKED
            if self.__dict__[name] != fields[name].get_default(call_default_factory=True)
        ]
        if shaped:
            raise FieldError(
                shaped[0], "the rows of a rescore build stand as they are; leave it out"
            )
        if not isinstance(self.seeds, str):
            raise FieldError("seeds", "a rescore build takes the rows of a dataset, by name or id")
        return self
