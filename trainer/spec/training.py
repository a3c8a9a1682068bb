"""What all trainings have in common, whatever their method."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from trainer.spec.base import Spec
from trainer.spec.optimization import Optimization
from trainer.spec.quantization import QuantizationAware
from trainer.spec.teacher import TeacherLoad


class Lora(Spec):
    """Trains low-rank additions to linear layers alone (arXiv:2106.09685); merged at the end."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    """The addition is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names that end the linear layers' own; 'all' takes every linear but the head. Of the default
    those that a student has are taken; others must all be there."""


class Training(Spec):
    """A student, the rows that it learns from, and how."""

    version: Literal[1] = 1
    dataset: str | None = None
    """Dataset id, or a path when run without the service; None in a recipe takes the build's."""
    student: str = Field(min_length=1)
    """Model id, directory or hub name of the model to start from."""
    initial: Literal["saved", "random"] = "saved"
    """random: only its configuration and tokenizer are taken; the weights are drawn by the seed."""
    name: str = "student"
    optimization: Optimization = Optimization()
    weight_by: Literal["none", "confidence"] = "none"
    """confidence: a row's loss counts by its agreement among samples, 0..1. The loss is divided by
    the number of tokens all the same. The validation loss never weighs rows."""
    lora: Lora | None = None
    """None trains all weights."""
    quantize: QuantizationAware | None = None
    """Trains the weights through their rounding and saves them packed; None trains them as they
    are."""

    @model_validator(mode="after")
    def _adapters_or_rounding(self) -> "Training":
        if self.lora is not None and self.quantize is not None:
            raise ValueError(
                "quantize trains the weights that lora freezes: leave one of the two out, or train "
                "adapters on a quantized base by a stage of kind: qaf"
            )
        if self.lora is not None and self.initial == "random":
            raise ValueError("lora trains beside frozen weights, and random ones are worth nothing")
        return self


class WithTeacher(Training):
    """What all methods with a teacher in the trainer's process share."""

    one_vocabulary: ClassVar[bool] = True
    """Whether the teacher must have the student's token ids."""
    teacher: str = Field(min_length=1)
    """Model id, directory or hub name."""
    teacher_load: TeacherLoad = TeacherLoad()
    unserved: ClassVar[str] = "use served_kl"
    """Why a served teacher's log-probs don't do for it, or what does."""

    @model_validator(mode="after")
    def _has_its_weights(self) -> "WithTeacher":
        if self.teacher.startswith(("http://", "https://")):
            raise ValueError(
                "teacher: this method needs the teacher's weights, and a server gives the "
                f"log-probs of its likeliest tokens alone: {self.unserved}"
            )
        return self
