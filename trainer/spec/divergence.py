"""How a student's distribution is compared with its teacher's: a union on `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Spec


class ForwardDivergence(Spec):
    """KL(teacher || student): covers all that the teacher says."""

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseDivergence(Spec):
    """KL(student || teacher): keeps to what the teacher finds likely."""

    kind: Literal["reverse_kl"]


class JensenShannon(Spec):
    """Generalized Jensen-Shannon divergence (arXiv:2306.13649)."""

    kind: Literal["jsd"]
    beta: float = Field(0.5, ge=0, le=1)
    """The teacher's share of the mixture; 0 is the forward KL, 1 the reverse one."""


class SkewForward(Spec):
    """KL from the teacher to a mixture with the student (arXiv:2402.03898)."""

    kind: Literal["skew_kl"]
    alpha: float = Field(0.1, ge=0, lt=1)
    """The teacher's share of the mixture; 0 is the forward KL."""


class SkewReverse(Spec):
    """KL from the student to a mixture with the teacher (arXiv:2402.03898)."""

    kind: Literal["skew_reverse_kl"]
    alpha: float = Field(0.1, ge=0, lt=1)
    """The student's share of the mixture; 0 is the reverse KL."""


class TotalVariation(Spec):
    """Half the absolute difference of the probabilities (arXiv:2307.15190)."""

    kind: Literal["tvd"]


class AdaptiveKL(Spec):
    """Forward and reverse KL, weighed by where the student is off (arXiv:2404.02657)."""

    kind: Literal["adaptive_kl"]
    head_mass: float = Field(0.5, gt=0, lt=1)
    """Probability of the teacher's likeliest tokens, together its head."""


DivergenceSpec = Annotated[
    ForwardDivergence
    | ReverseDivergence
    | JensenShannon
    | SkewForward
    | SkewReverse
    | TotalVariation
    | AdaptiveKL,
    Field(discriminator="kind"),
]
