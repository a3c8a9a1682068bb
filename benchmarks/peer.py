"""trl, the peer of the losses: measured beside where it is installed, and needed by nothing."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

HINT = "pip install --no-deps --target .peers trl==1.16.0, then PYTHONPATH=.peers"


class NoPeerError(Exception):
    """What a benchmark is held against isn't installed; says how to get it."""


@dataclass(frozen=True)
class Trl:
    """What is compared of trl 1.16."""

    jsd: Callable[..., Any]
    """`GKDTrainer.generalized_jsd_loss`, on logits."""
    chunked: Callable[..., Any]
    """The distillation trainer's divergence on hidden states, tile by tile."""
    uld: Callable[..., Any]
    """GOLD's `ULDLoss`."""
    gkd: Any
    """`GKDTrainer`, whose methods are called on `gkd_of` in the place of a trainer: without its
    data, logs and optimizer."""

    def gkd_of(self, teacher: Any, beta: float) -> Any:
        """What `GKDTrainer.compute_loss` asks of its trainer."""
        return SimpleNamespace(
            teacher_model=teacher, beta=beta, generalized_jsd_loss=self.gkd.generalized_jsd_loss
        )


def find_trl() -> Trl | None:
    """None where it isn't installed."""
    if importlib.util.find_spec("trl") is None:
        return None
    gkd: Any = importlib.import_module("trl.experimental.gkd.gkd_trainer")
    gold: Any = importlib.import_module("trl.experimental.gold.gold_trainer")
    distillation: Any = importlib.import_module("trl.trainer.distillation_trainer")
    return Trl(
        gkd.GKDTrainer.generalized_jsd_loss,
        distillation._chunked_divergence_loss,
        gold.ULDLoss,
        gkd.GKDTrainer,
    )


def need_trl() -> Trl:
    """Raises NoPeerError where it isn't installed."""
    found = find_trl()
    if found is None:
        raise NoPeerError(f"it is measured beside trl, which isn't installed: {HINT}")
    return found
