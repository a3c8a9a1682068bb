"""What is told, and looked at, where a training leaves the finite numbers."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trainer.errors import Diverged

RECENT = 5
"""Losses that are told."""
TIMES, FOR_STEPS = 10.0, 20
"""A finite loss that is so many times as high as it may begin, for so long, has run away."""


def all_finite(module: nn.Module) -> bool:
    """Whether all weights are, of this rank's part where it holds one."""
    parts = (p.detach() for p in module.parameters())
    local = (p.to_local() if isinstance(p, DTensor) else p for p in parts)
    return all(bool(torch.isfinite(part).all()) for part in local)


def ran_away(losses: Sequence[tuple[int, float]], vocabulary: int) -> bool:
    """Whether the loss stays far above its first and above what guessing among all tokens costs."""
    recent = losses[-FOR_STEPS:]
    bound = TIMES * max(losses[0][1], math.log(vocabulary)) if losses else math.inf
    return len(recent) == FOR_STEPS and all(loss > bound for _, loss in recent)


def diverged(
    step: int,
    what: str,
    value: float,
    rate: float,
    losses: Sequence[tuple[int, float]],
    terms: Mapping[str, float],
    kept: int | None,
) -> Diverged:
    """`step` steps were made; `what` became `value` in the next, or by the last (`weights`).
    `terms` are the loss's own; `kept` is the step of the last finite checkpoint."""
    recent = ", ".join(f"{loss:.3g}" for _, loss in losses[-RECENT:]) or "none"
    each = ", ".join(f"{name} {found:.3g}" for name, found in terms.items())
    told = f"The {what} became {value:.6g} at learning rate {rate:.3g}"
    told += f"; the losses before were {recent}"
    told += f", this step's terms {each}. " if each else ". "
    told += "" if kept is None else f"The last finite checkpoint is step {kept}. "
    return Diverged(
        f"training diverged at step {step if what == 'weights' else step + 1}",
        told + _advice(step, what, terms),
    )


def _advice(step: int, what: str, terms: Mapping[str, float]) -> str:
    lower = (
        "Lower optimization.learning_rate or max_grad_norm, or warm up longer; with bf16, try fp32."
    )
    if step > 0 or what == "weights":
        return lower
    if terms.get("reverse_kl") == math.inf:
        return (
            "Nothing had been learnt yet: the teacher rules out tokens that the student expects, "
            "and there the reverse KL is infinite. Take skew_reverse_kl, jsd or forward_kl."
        )
    return (
        "Nothing had been learnt yet, so the rate isn't to blame: look at student and teacher "
        "(`retort evaluate`), and at the temperature; with bf16, try fp32."
    )
