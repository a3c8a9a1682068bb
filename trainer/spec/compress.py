"""What is done to a trained model: one spec per stage, a union on `kind`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prompts.record import Frozen
from trainer.spec.evaluation import EvalSpec
from trainer.spec.optimization import Optimization


class Gate(Frozen):
    """How much a stage may lose before the chain stops."""

    max_accuracy_drop: float | None = Field(0.10, ge=0, le=1)
    """Of mean accuracy on the evaluation rows, absolute; None does not look."""
    max_kl: float | None = Field(None, gt=0)
    """Nats per token from the model before the stage; None does not look."""


class Heal(Frozen):
    """A short training run after a stage, towards the model the chain started from."""

    method: Literal["forward_kl", "sequence_level"] = "forward_kl"
    optimization: Optimization = Optimization()


class _Stage(Frozen):
    on: Literal["previous", "start"] = "previous"
    """The model it works on: the stage before, or the model that the chain started from."""
    gate: Gate = Gate()
    heal: Heal | None = None
    calibration_rows: int = Field(128, ge=1)
    """Rows of the dataset's train split whose activations the stage looks at."""


class WandaPrune(_Stage):
    """Unstructured pruning by |W| * ||x||, within each output row (arXiv:2306.11695)."""

    kind: Literal["wanda"]
    sparsity: float = Field(0.5, gt=0, lt=1)
    pattern: Literal["unstructured", "2:4", "4:8"] = "unstructured"
    """n:m keeps n of each m inputs and fixes the sparsity."""

    @model_validator(mode="after")
    def _pattern_fixes_the_sparsity(self) -> "WandaPrune":
        if self.pattern != "unstructured" and self.sparsity != 0.5:
            raise ValueError(f"pattern {self.pattern} zeroes half: leave sparsity at 0.5")
        return self


class DepthPrune(_Stage):
    """Structured pruning of whole layers, the lowest block influence first (arXiv:2403.03853)."""

    kind: Literal["depth"]
    layers: int = Field(1, ge=1)
    """How many layers go."""


class SvdFactorize(_Stage):
    """Low-rank factors by activation-whitened truncated SVD (SVD-LLM, arXiv:2403.07378)."""

    kind: Literal["svd"]
    parameter_ratio: float = Field(0.6, gt=0, lt=1)
    """r (m + n) / (m n): what the two factors keep of each matrix's parameters."""
    whitening: bool = True
    """False is the plain Eckart-Young truncation."""
    targets: tuple[str, ...] = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linears to factorize."""


class QuantizePtq(_Stage):
    """Post-training quantization, exported as compressed-tensors."""

    kind: Literal["ptq"]
    scheme: Literal["W8A8"] = "W8A8"
    """W8A8: int8 weights per channel, int8 activations per token."""
    algorithm: Literal["rtn", "gptq"] = "gptq"


StageSpec = Annotated[
    WandaPrune | DepthPrune | SvdFactorize | QuantizePtq, Field(discriminator="kind")
]


class CompressSpec(Frozen):
    """Stages run in order, each on the model before it or, as a branch, on the first one."""

    version: Literal[1] = 1
    model: str | None = None
    """Model id or directory; None in a recipe takes the trained student."""
    dataset: str | None = None
    """Where calibration and healing rows come from; None in a recipe takes the build's."""
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    evaluate: EvalSpec | None = None
    """None in a recipe takes the recipe's."""
    serve_check: bool = True
    """Load quantized and factorized results in vLLM and compare them with transformers."""
    threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _nothing_works_on_packed_weights(self) -> "CompressSpec":
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            if before.kind == "ptq" and stage.on == "previous":
                raise ValueError(f"{stage.kind} can't follow ptq: packed weights can't be changed")
        return self
