"""How far a student's next-token distribution lies from its teacher's.

K kept positions, N outcomes: the vocabulary, or the few that a stored signal tells apart. Every
divergence takes log-probabilities, in fp32 or wider, and gives nats per position. p is the
teacher, q the student. What has probability zero adds nothing, also where its logarithm is -inf.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(log p [K, N], log q [K, N]) -> nats [K]"""

FLOOR = -1e4
"""exp(FLOOR) is 0 in fp64 too; -inf itself has no gradient through a logarithm of a sum."""


def forward(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q): the student must cover what the teacher says."""
    return _kl(log_p, log_q)


def reverse(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p): the student must not say what the teacher wouldn't (arXiv:2306.08543).

    Infinite where the teacher rules out what the student says.
    """
    return _kl(log_q, log_p)


def jsd(beta: float) -> Divergence:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv:2306.13649).

    At the ends the KLs themselves: forward at 0, reverse at 1. There the scale jumps, because
    the formula goes to zero: divided by beta (by 1 - beta) it goes to KL(p || q) (to KL(q || p)).
    """
    if beta == 0:
        return forward
    if beta == 1:
        return reverse

    def between(log_p: Tensor, log_q: Tensor) -> Tensor:
        log_m = _mixture(log_p, log_q, beta)
        return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)

    return between


def skew_forward(alpha: float) -> Divergence:
    """KL(p || alpha p + (1 - alpha) q), 0 <= alpha < 1 (arXiv:2402.03898)."""
    if alpha == 0:
        return forward
    return lambda log_p, log_q: _kl(log_p, _mixture(log_p, log_q, alpha))


def skew_reverse(alpha: float) -> Divergence:
    """KL(q || (1 - alpha) p + alpha q), 0 <= alpha < 1 (arXiv:2402.03898)."""
    if alpha == 0:
        return reverse
    return lambda log_p, log_q: _kl(log_q, _mixture(log_q, log_p, alpha))


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """half the sum of |p - q| (arXiv:2307.15190): no logarithm, so at most 1."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(dim=-1)


def adaptive(head_mass: float) -> Divergence:
    """Forward and reverse KL, weighed by where the student is off (arXiv:2404.02657).

    The teacher's head is the smallest set of its likeliest tokens with at least `head_mass`. The
    gap |p - q| summed over the head, as a share of the whole gap, weighs the forward KL; the
    tail's share weighs the reverse KL. The shares are weights: no gradient goes through them.
    """

    def weighed(log_p: Tensor, log_q: Tensor) -> Tensor:
        share = _head_share(log_p.detach().exp(), log_q.detach().exp(), head_mass)
        return share * forward(log_p, log_q) + (1 - share) * reverse(log_p, log_q)

    return weighed


def on_logits(
    divergence: Divergence, student_logits: Tensor, teacher_logits: Tensor, kd_temperature: float
) -> Tensor:
    """tau^2 D(p, q), both softened by tau: logits [K, V], [K, V] -> nats [K].

    The square keeps the gradient's scale the same for every tau (arXiv:1503.02531, section 2).
    """
    log_p = tempered(teacher_logits, kd_temperature)
    log_q = tempered(student_logits, kd_temperature)
    return divergence(log_p, log_q) * kd_temperature**2


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, kd_temperature: float) -> Tensor:
    """tau^2 KL(p || q) of dense logits: [K, V], [K, V] -> nats [K]."""
    return on_logits(forward, student_logits, teacher_logits, kd_temperature)


def entropy(logits: Tensor) -> Tensor:
    """-sum q log q of next-token distributions: logits [K, V] -> nats [K]."""
    nats: Tensor = torch.special.entr(F.softmax(upcast(logits), dim=-1)).sum(dim=-1)
    return nats


def tempered(logits: Tensor, kd_temperature: float) -> Tensor:
    """log softmax(logits / tau), 16-bit inputs widened."""
    return F.log_softmax(upcast(logits) / kd_temperature, dim=-1)


def upcast(tensor: Tensor) -> Tensor:
    """16-bit to fp32; fp32 and fp64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


DIVERGENCES: dict[str, Callable[[Any], Divergence]] = {
    "forward_kl": lambda spec: forward,
    "reverse_kl": lambda spec: reverse,
    "jsd": lambda spec: jsd(spec.beta),
    "skew_kl": lambda spec: skew_forward(spec.alpha),
    "skew_reverse_kl": lambda spec: skew_reverse(spec.alpha),
    "tvd": lambda spec: total_variation,
    "adaptive_kl": lambda spec: adaptive(spec.head_mass),
}
"""By the `kind` of a DivergenceSpec."""


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """sum a (log a - log b)"""
    a = log_a.exp()
    # The gap is cleared before it is multiplied: 0 * inf would make the gradient NaN.
    gap = torch.where(a > 0, log_a - log_b, torch.zeros_like(a))
    return (a * gap).sum(dim=-1)


def _mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b), 0 < share < 1"""
    first = log_a.clamp(min=FLOOR) + math.log(share)
    return torch.logaddexp(first, log_b.clamp(min=FLOOR) + math.log1p(-share))


def _head_share(p: Tensor, q: Tensor, head_mass: float) -> Tensor:
    """[K, N], [K, N] -> [K]; one half where there is no gap at all."""
    ranked, order = p.sort(dim=-1, descending=True, stable=True)
    gap = (ranked - q.gather(-1, order)).abs()
    in_head = ranked.cumsum(dim=-1) - ranked < head_mass
    head, whole = (gap * in_head).sum(dim=-1), gap.sum(dim=-1)
    return torch.where(whole > 0, head / whole.clamp(min=1e-30), torch.full_like(whole, 0.5))
