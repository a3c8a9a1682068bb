"""What a quantized model is, and how a student is trained to be one."""

from typing import Literal

from pydantic import Field, model_validator

from trainer.spec.base import Spec

SchemeName = Literal["W8A8", "W8A16", "W4A16", "FP8"]
"""W8A8: int8 weights per channel, int8 activations per token. W8A16: int8 weights per channel.
W4A16: int4 weights per group. FP8: e4m3 weights per channel, activations per token."""

PACKED = "train.quantize leaves packed weights, which no stage can change: leave one of the two out"
"""Why a quantized training can't be followed by stages on its student."""


class QuantizationAware(Spec):
    """Quantization-aware training: the student computes with rounded weights in every step, its
    gradients go straight through (arXiv:1308.3432), and it is saved on exactly that grid."""

    scheme: SchemeName = "W4A16"
    group_size: int = Field(128, ge=1)
    """Inputs that share a scale in W4A16."""

    @model_validator(mode="after")
    def _group_size_is_read(self) -> "QuantizationAware":
        check_group_size(self.scheme, self.group_size)
        return self


def check_group_size(scheme: SchemeName, group_size: int) -> None:
    """ValueError for one that nothing would read."""
    if group_size != 128 and scheme != "W4A16":
        raise ValueError("group_size is read by scheme: W4A16 alone")
