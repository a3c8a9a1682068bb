"""Which rows of a dataset are too much like others: looked at when all rows are there."""

from typing import Literal

from pydantic import Field

from prompts.record import Frozen

Part = Literal["prompt", "completion", "both"]
"""What of a row is compared: its last user message, its completion, or the two joined."""


class Novelty(Frozen):
    """Reject a row whose ROUGE-L with an earlier accepted row reaches a limit [2212.10560]."""

    rouge_l: float = Field(0.7, gt=0, le=1)
    """The limit; verdicts equal those of comparing with every earlier row."""
    of: Part = "prompt"
    """What is compared."""


class NearDuplicates(Frozen):
    """Reject a row that is nearly an earlier accepted row, by MinHash and LSH."""

    jaccard: float = Field(0.8, gt=0, lt=1)
    """The limit of the estimated similarity of the rows' sets of word runs."""
    permutations: int = Field(128, ge=16, le=1024)
    """More: a closer estimate, more memory (8 bytes each a row)."""
    shingle_words: int = Field(3, ge=1, le=20)
    """Words of a run."""
    of: Part = "both"
    """What is compared."""
    against: tuple[str, ...] = ()
    """Datasets, by id or name, whose accepted rows count as earlier ones: versions before this."""
