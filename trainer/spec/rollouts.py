"""Who draws a student's own answers."""

from typing import TYPE_CHECKING

from pydantic import Field

from trainer.spec.base import Spec

if TYPE_CHECKING:
    from trainer.spec.train import OnPolicy, ServedKL


class VllmRollouts(Spec):
    """A vLLM server beside the training, on the same GPU, that takes over the student's weights
    before each drawing. For one process; trained weights only, no adapters and no rounding."""

    memory_share: float = Field(0.3, gt=0, lt=1)
    """Of the GPU's memory, for the server's weights and cache."""
    in_flight: int = Field(64, ge=1)
    """Answers asked for at once."""


def check_rollouts(spec: "OnPolicy | ServedKL") -> None:
    """ValueError where a server can't take the weights over, or has nothing to draw."""
    if spec.vllm is None:
        return
    if spec.lora is not None or spec.quantize is not None:
        raise ValueError("vllm: a server takes plain weights over: leave out lora and quantize")
    if spec.student_share == 0:
        raise ValueError("vllm: with a student_share of 0 no answers are drawn: leave it out")
