"""How a teacher is held in memory."""

from typing import Literal

from trainer.spec.base import Spec


class TeacherLoad(Spec):
    """How a teacher is held while a student learns from it; what saves memory costs time or
    digits."""

    dtype: Literal["saved", "fp32", "bf16"] = "saved"
    """Of its weights; saved is what its files hold."""
    bits: Literal[8, 4] | None = None
    """Weights of its linear layers, embeddings and head left out: 8-bit integers with a scale for
    each row, or 4-bit ones with a scale and a lowest value for each 64 inputs."""
    offload: bool = False
    """Its layers wait in the CPU's memory and come to the GPU one at a time, as it computes."""
