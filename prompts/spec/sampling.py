"""How a teacher samples, and which rows are held back from training."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from prompts.fields import FieldError
from prompts.record import Frozen


class Sampling(Frozen):
    """How the teacher samples. Defaults are greedy: one certain answer per row.

    These fields are the allow-list of what a server is sent; a field that is None is not sent.
    """

    temperature: float = Field(0.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    """Draw among the so many likeliest tokens only."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among tokens that are at least this part as likely as the likeliest."""
    max_tokens: int = Field(256, ge=1)
    """Limit of one completion; rows that meet it are rejected as truncated."""
    min_tokens: int | None = Field(None, ge=1)
    """No end of the completion before so many tokens."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    stop: tuple[Annotated[str, StringConstraints(min_length=1)], ...] | None = Field(
        None, min_length=1, max_length=16
    )
    """Texts that end a completion; they are not part of it."""
    enable_thinking: bool | None = None
    """Told to the chat templates that know it: whether a reasoning model thinks first."""
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    """How long a reasoning model thinks, where its server knows that."""
    seed: int | None = None
    """Sent to the server; each row, step and sample adds its own number to it."""

    @model_validator(mode="after")
    def _can_end(self) -> "Sampling":
        if self.min_tokens is not None and self.min_tokens > self.max_tokens:
            raise FieldError(
                "min_tokens",
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}:"
                " every row would be truncated",
            )
        return self


class Split(Frozen):
    """Shares of validation and test. A hash of the seed's input decides, stable across versions."""

    validation: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self
