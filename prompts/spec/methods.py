"""How an instruction build comes by its instructions."""

from typing import Annotated, Literal

from pydantic import Field

from prompts.record import Frozen
from prompts.spec.sampling import Sampling

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


MethodSpec = Annotated[Respond | EvolInstruct | SelfInstruct, Field(discriminator="kind")]
