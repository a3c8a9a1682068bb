"""What all rows of a signal share: refused before the first step if it doesn't fit the student."""

from typing import Literal

from pydantic import Field

from prompts.record import Frozen

MAX_VOCABULARY = 1 << 24
"""Token ids take three bytes."""
MAX_WIDTH = 1000


class SignalHeader(Frozen):
    """The head of a signal file."""

    kind: Literal["top_k", "sampled"]
    width: int = Field(ge=1, le=MAX_WIDTH)
    """Entries a token: k of top_k, n draws of sampled."""
    temperature: float = Field(1.0, gt=0)
    """Of the distribution that was recorded: top_k serves a loss at this temperature alone, for
    the mass outside the k can't be re-tempered."""
    proposal_temperature: float | None = Field(None, gt=0)
    """sampled: of the distribution that the draws came from; the weights correct for it."""
    vocabulary: int | None = Field(None, ge=1, le=MAX_VOCABULARY)
    """Number of token ids of the teacher; None: unknown, ids are below 2**24."""
    tokenizer_sha256: str | None = None
    """Of the teacher's tokenizer.json; None where it was not at hand."""
    template_sha256: str | None = None
    """Of the chat template that the prompts were written with; None where it was not at hand."""
    teacher: str
    teacher_revision: str | None = None
