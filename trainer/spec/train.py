"""How a student is trained: one spec per method, a union on `method`."""

from typing import Annotated, Literal

from pydantic import Field

from prompts.record import Frozen
from trainer.spec.optimization import Optimization


class _Train(Frozen):
    version: Literal[1] = 1
    dataset: str | None = None
    """Dataset id, or a path when run without the service; None in a recipe takes the build's."""
    student: str = Field(min_length=1)
    """Model id, directory or hub name of the model to start from."""
    name: str = "student"
    optimization: Optimization = Optimization()


class RationaleThenAnswer(_Train):
    """Chain-of-thought distillation: cross-entropy on rationale and answer as one completion.

    Needs a dataset with CoT rows.
    """

    method: Literal["rationale_then_answer"]


class SequenceLevel(_Train):
    """Sequence-level distillation: cross-entropy on a teacher's completions (arXiv:1606.07947)."""

    method: Literal["sequence_level"]


class ForwardKL(_Train):
    """Standard distillation: KL(teacher || student) per completion token, teacher in process."""

    method: Literal["forward_kl"]
    teacher: str = Field(min_length=1)
    """Model id, directory or hub name; must have the student's vocabulary."""
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions; the loss is scaled by its square."""
    cross_entropy_weight: float = Field(0.0, ge=0, le=1)
    """Share w of the hard loss: (1 - w) * KL + w * CE."""


TrainSpec = Annotated[
    RationaleThenAnswer | SequenceLevel | ForwardKL, Field(discriminator="method")
]
