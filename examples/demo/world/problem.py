"""What every skill generates, and which split a problem belongs to."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Skill = Literal["cot", "icl", "if"]
Split = Literal["train", "seed", "heldout"]

HELDOUT_PERCENT = 10
SEED_PERCENT = 10


@dataclass(frozen=True)
class Problem:
    """One question with its exact answer.

    `user` is the whole user turn and `completion` the reference assistant turn. `targets` are
    half-open character ranges of `user` that count in the training loss too: the outputs of
    demonstrations that are already determined by earlier ones. `seed` is the structured form
    that the product's templates take, without an id.
    """

    skill: Skill
    user: str
    completion: str
    answer: str
    split: Split
    seed: dict[str, str]
    targets: tuple[tuple[int, int], ...] = field(default=())
    system: str = ""

    @property
    def id(self) -> str:
        """A short name made of the content, the same in every run."""
        digest = hashlib.sha256(f"{self.user}\n{self.answer}".encode()).hexdigest()
        return f"{self.skill}-{digest[:12]}"


def split_of(canonical: str) -> Split:
    """The split that content belongs to: a hash of it, so that no two splits can share it."""
    bucket = percentile_of(canonical)
    if bucket < HELDOUT_PERCENT:
        return "heldout"
    return "seed" if bucket < HELDOUT_PERCENT + SEED_PERCENT else "train"


def percentile_of(canonical: str) -> int:
    """A number in 0..99 that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big") % 100
