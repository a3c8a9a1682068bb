"""What training, compression and evaluation are asked for. Free of torch, so that a service can
validate a recipe without loading it."""

from trainer.spec.compress import (
    CompressSpec,
    DepthPrune,
    Gate,
    Heal,
    QuantizePtq,
    StageSpec,
    SvdFactorize,
    WandaPrune,
)
from trainer.spec.evaluation import EvalSpec
from trainer.spec.optimization import Optimization
from trainer.spec.train import ForwardKL, RationaleThenAnswer, SequenceLevel, TrainSpec

__all__ = [
    "CompressSpec",
    "DepthPrune",
    "EvalSpec",
    "ForwardKL",
    "Gate",
    "Heal",
    "Optimization",
    "QuantizePtq",
    "RationaleThenAnswer",
    "SequenceLevel",
    "StageSpec",
    "SvdFactorize",
    "TrainSpec",
    "WandaPrune",
]
