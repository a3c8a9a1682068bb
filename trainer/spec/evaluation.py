"""How a model is measured."""

from pydantic import Field

from prompts.record import Frozen


class EvalSpec(Frozen):
    """How a model is measured: greedy answers on held-out rows, and its speed."""

    data: str = Field(min_length=1)
    """Id of an uploaded evaluation file (JSONL: id, skill, prompt, answer, check), or a path."""
    limit_per_skill: int = Field(200, ge=1)
    max_new_tokens: int = Field(160, ge=1)
    batch_size: int = Field(64, ge=1)
