"""What every build asks for, whatever its kind."""

from typing import Literal

from pydantic import Field, model_validator

from prompts.record import Frozen
from prompts.template import TemplateSource


class Sampling(Frozen):
    """How the teacher samples. Defaults are greedy: one certain answer per row."""

    temperature: float = Field(0.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    """Limit of one completion; rows that meet it are rejected as truncated."""
    seed: int | None = None
    """Sent to the server; each row adds its own number to it."""
    logprobs: int | None = Field(None, ge=0, le=1000)
    """Ask for the log-probabilities of this many tokens per position; checked against what the
    teacher allows before anything is asked."""


class Split(Frozen):
    """Shares of validation and test. A hash of the seed's input decides, stable across versions."""

    validation: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


class Build(Frozen):
    version: Literal[1] = 1
    teacher: str = Field(min_length=1)
    """Name of a registered teacher."""
    seeds: str = Field(min_length=1)
    """Id of an uploaded seeds file; `retort run` uploads a path and puts the id here."""
    name: str = "dataset"
    """The dataset's name; each build of a name is a new version."""
    system: TemplateSource | None = None
    """A system message before every prompt; a template too."""
    sampling: Sampling = Sampling()
    split: Split = Split()
    limit: int | None = Field(None, ge=1)
    """Ask for the first so many seeds only."""
    target: int | None = Field(None, ge=1)
    """Stop once so many rows are accepted; the rest end as not_needed."""
    deduplicate: bool = True
    """Reject a row whose prompt and completion equal an earlier row's."""
    max_in_flight: int = Field(64, ge=1, le=4096)
    """Requests under way at once, over all workers that drain this job."""
    chunk_rows: int = Field(256, ge=1, le=100_000)
