"""How a model is measured."""

from typing import Literal

from pydantic import Field

from prompts.verify import VerifierSpec
from trainer.spec.base import Spec


class EvalSpec(Spec):
    """How a model is measured: greedy answers on held-out rows, and its speed."""

    data: str = Field(min_length=1)
    """Id of an uploaded evaluation file (JSONL: id, skill, prompt, answer, check), or a path."""
    limit_per_skill: int = Field(200, ge=1)
    max_new_tokens: int = Field(160, ge=1)
    batch_size: int = Field(64, ge=1)


class DatasetEval(Spec):
    """How a model is measured on a dataset's own rows."""

    dataset: str = Field(min_length=1)
    """Directory of a dataset."""
    split: Literal["train", "validation", "test"] = "test"
    teacher: str | None = None
    """Directory or hub name of a model to be compared with, token by token."""
    limit: int = Field(200, ge=2)
    """Rows, evenly spread over the split."""
    max_new_tokens: int = Field(160, ge=1)
    """Of each greedy answer."""
    batch_size: int = Field(16, ge=1)
    verify: VerifierSpec | None = None
    """How answers are compared; None takes what the dataset was built with."""
    resamples: int = Field(2000, ge=100)
    """Of the bootstrap that gives the intervals."""
    samples: int = Field(5, ge=0)
    """Answers to show beside the dataset's and the teacher's."""
    vllm: bool = False
    """Whether to serve the model with vLLM too, and measure its speed there."""
    threads: int | None = Field(None, ge=1)
