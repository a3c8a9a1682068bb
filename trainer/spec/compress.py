"""What is done to a trained model: stages in order, a union on `kind`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.base import AtLeast, Spec
from trainer.spec.evaluation import EvalSpec
from trainer.spec.stages import (
    DepthPrune,
    Evaluate,
    Gate,
    Heal,
    HealAlone,
    MagnitudePrune,
    QuantizeFinetune,
    QuantizePtq,
    QuantizeTrain,
    SparseGptPrune,
    Stage,
    SvdFactorize,
    TensorFactorize,
    WandaPrune,
    WidthPrune,
)

StageSpec = Annotated[
    MagnitudePrune
    | WandaPrune
    | SparseGptPrune
    | DepthPrune
    | WidthPrune
    | SvdFactorize
    | TensorFactorize
    | QuantizePtq
    | QuantizeTrain
    | QuantizeFinetune
    | HealAlone
    | Evaluate,
    Field(discriminator="kind"),
]

Sweepable = MagnitudePrune | WandaPrune | SparseGptPrune | SvdFactorize | TensorFactorize
"""Stages with a ratio, which a sweep gives several values."""
PACKING = ("ptq", "qat", "qaf")
"""Kinds of stage that leave packed weights."""
AFTER_SVD = {
    "svd": "factorizes a model once: name all targets in one stage",
    "width": "cuts whole matrices, and factors are two: put it before svd",
    "tensor": "folds whole matrices, and factors are two: put it before svd",
}
"""Kinds of stage that can't follow svd, and why."""


class CompressSpec(Spec):
    """Stages run in order, each on the model before it or, as a branch, on the first one."""

    version: Literal[1] = 1
    model: str | None = None
    """Model id or directory; None in a recipe takes the trained student."""
    dataset: str | None = None
    """Where calibration and healing rows come from; None in a recipe takes the build's."""
    stages: Annotated[tuple[StageSpec, ...], AtLeast(1)]
    evaluate: EvalSpec | None = None
    """None in a recipe takes the recipe's."""
    teacher: str | None = None
    """Model id or directory, of one vocabulary with `model`: each model's KL from it, and how often
    both find the same token likeliest, are measured too. It is only run forward."""
    answer_rows: int = Field(64, ge=0)
    """Held-out rows whose prompts each model answers, to be compared with the rows' completions
    and judged by the dataset's verifier: two at least, or 0 for none."""
    serve_check: bool = True
    """Load quantized and factorized results, and whatever `evaluate` measures, in vLLM and compare
    them with transformers."""
    threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _orders_that_can_not_work(self) -> "CompressSpec":
        factorized, packed = False, None
        for index, stage in enumerate(self.stages):
            follows = bool(index) and stage.on == "previous"
            if follows and _sweeps(self.stages[index - 1]):
                raise ValueError(
                    f"stages[{index}].on: the sweep before leaves several models: set on: start"
                )
            factorized, packed = factorized and follows, packed if follows else None
            if packed is not None and stage.kind != "evaluate":
                raise ValueError(
                    f"stages[{index}]: {stage.kind} can't follow {packed}: packed weights can't be "
                    "changed. Put it before, or set on: start"
                )
            packed = stage.kind if stage.kind in PACKING else packed
            if factorized and stage.kind in AFTER_SVD:
                raise ValueError(f"stages[{index}]: {stage.kind} {AFTER_SVD[stage.kind]}")
            if factorized and stage.kind == "ptq" and stage.algorithm in ("smoothquant", "awq"):
                raise ValueError(
                    f"stages[{index}].algorithm: {stage.algorithm} rescales whole matrices, and "
                    "factors are two: use rtn or gptq after svd"
                )
            factorized = factorized or stage.kind == "svd"
        return self


def _sweeps(stage: StageSpec) -> bool:
    return isinstance(stage, Sweepable) and stage.sweep is not None


__all__ = [
    "CompressSpec",
    "DepthPrune",
    "Evaluate",
    "Gate",
    "Heal",
    "HealAlone",
    "MagnitudePrune",
    "QuantizeFinetune",
    "QuantizePtq",
    "QuantizeTrain",
    "SparseGptPrune",
    "Stage",
    "StageSpec",
    "SvdFactorize",
    "TensorFactorize",
    "WandaPrune",
    "WidthPrune",
]
