"""How an instruction build comes by its instructions."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prompts.fields import FieldError
from prompts.record import Frozen
from prompts.spec.sampling import Sampling
from prompts.spec.writing import EvolPrompts, SelfInstructPrompts

Operator = Literal["constrain", "deepen", "concretise", "reason", "complicate_input", "broaden"]
DEPTH: tuple[Operator, ...] = ("constrain", "deepen", "concretise", "reason", "complicate_input")


class Respond(Frozen):
    """The seeds' instructions are answered as they are."""

    kind: Literal["respond"] = "respond"


class EvolInstruct(Frozen):
    """Each instruction is rewritten, several times over, then answered [2304.12244]."""

    kind: Literal["evol_instruct"]
    rounds: int = Field(2, ge=1, le=8)
    """Rewritings, one after the other; one that is eliminated leaves the instruction as it was."""
    operators: tuple[Operator, ...] = Field((*DEPTH, "broaden"), min_length=1)
    """Drawn from for each rewriting, by the row's id: five in depth, broaden in breadth."""
    compare: bool = True
    """Ask the teacher whether the rewritten instruction gained anything; one call a rewriting."""
    sampling: Sampling = Sampling(temperature=0.7)
    """For the rewritings; answers are sampled as the build says."""
    prompts: EvolPrompts = EvolPrompts()
    """What the teacher is told, for another language or domain than plain English."""


class SelfInstruct(Frozen):
    """The teacher writes instructions after examples from a growing pool [2212.10560].

    The build's seeds are the pool's first tasks. Rounds run one after the other: what a round is
    shown is the pool as the rounds before it left it.
    """

    kind: Literal["self_instruct"]
    rounds: int = Field(4, ge=1, le=1000)
    rows_per_round: int = Field(256, ge=1, le=1_000_000)
    """Instructions that are asked for in a round; how many are kept is the filters' matter."""
    shown_seeds: int = Field(6, ge=1, le=32)
    """Examples from the seeds in each request."""
    shown_written: int = Field(2, ge=0, le=32)
    """Examples from what earlier rounds wrote; seeds stand in where there are too few."""
    rouge_l: float = Field(0.7, gt=0, le=1)
    """An instruction whose ROUGE-L with one of the pool reaches this is rejected."""
    max_words: int = Field(150, ge=3)
    """Longer instructions are rejected."""
    sampling: Sampling = Sampling(temperature=0.9)
    """For instructions and inputs; answers are sampled as the build says."""
    prompts: SelfInstructPrompts = SelfInstructPrompts()
    """What the teacher is told, for another language or domain than plain English."""


class Magpie(Frozen):
    """The teacher writes a user's turn itself, where its chat template leaves room for one, and
    then answers it [2406.08464].

    There are no seeds. Rounds run one after the other: what is new is decided by the pool as the
    rounds before left it.
    """

    kind: Literal["magpie"]
    rounds: int = Field(1, ge=1, le=1000)
    rows_per_round: int = Field(256, ge=1, le=1_000_000)
    """Instructions that are asked for in a round; how many are kept is the filters' matter."""
    rouge_l: float = Field(0.7, gt=0, le=1)
    """An instruction whose ROUGE-L with one of the pool reaches this is rejected unanswered."""
    max_words: int = Field(500, ge=1)
    """Longer instructions are rejected."""
    sampling: Sampling = Sampling(temperature=1.0)
    """For the instructions; answers are sampled as the build says."""

    @model_validator(mode="after")
    def _writes_different_ones(self) -> "Magpie":
        if self.sampling.temperature == 0:
            raise FieldError("sampling.temperature", "0 writes the same instruction every time")
        for name in ("enable_thinking", "reasoning_effort"):
            if self.sampling.__dict__[name] is not None:
                raise FieldError(
                    f"sampling.{name}",
                    "an instruction is no answer, nobody thinks first; say it in"
                    " the build's sampling",
                )
        return self


MethodSpec = Annotated[Respond | EvolInstruct | SelfInstruct | Magpie, Field(discriminator="kind")]
