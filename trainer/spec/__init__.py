"""What training, compression and evaluation are asked for. Free of torch, so that a service can
validate a recipe without loading it."""

from trainer.spec.compress import (
    CompressSpec,
    DepthPrune,
    Gate,
    Heal,
    MagnitudePrune,
    QuantizePtq,
    SparseGptPrune,
    StageSpec,
    SvdFactorize,
    TensorFactorize,
    WandaPrune,
    WidthPrune,
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
    "MagnitudePrune",
    "Optimization",
    "QuantizePtq",
    "RationaleThenAnswer",
    "SequenceLevel",
    "SparseGptPrune",
    "StageSpec",
    "SvdFactorize",
    "TensorFactorize",
    "TrainSpec",
    "WandaPrune",
    "WidthPrune",
]
