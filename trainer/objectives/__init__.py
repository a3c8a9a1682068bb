"""Losses as pure functions: tensors in, nats out."""

from trainer.objectives.divergences import (
    DIVERGENCES,
    Divergence,
    entropy,
    forward_kl,
    on_logits,
    tempered,
    upcast,
)
from trainer.objectives.head import (
    Head,
    Term,
    capped,
    cross_entropy,
    cross_entropy_term,
    divergence_term,
    entropy_term,
    head_loss,
    keep,
    weighted,
)

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "Head",
    "Term",
    "capped",
    "cross_entropy",
    "cross_entropy_term",
    "divergence_term",
    "entropy",
    "entropy_term",
    "forward_kl",
    "head_loss",
    "keep",
    "on_logits",
    "tempered",
    "upcast",
    "weighted",
]
