"""A loss through the head of a language model, for kept positions only.

B batch, T tokens, V vocabulary, D width, K kept positions (those that predict a completion
token). Sums over kept tokens are divided by an explicit count, which the caller takes over the
whole effective batch; no kept token gives zero, with a gradient. Reductions are in log space, in
fp32 or wider: 16-bit inputs are widened, nothing is ever narrowed.

The head is applied to kept positions only, some at a time, so that neither [B, T, V] nor [K, V]
exists, and prompt positions cost nothing after the last layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.objectives.divergences import Divergence, entropy, on_logits, upcast

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
"""Logits alive at once, by the kind of device. 16 MB in fp32 are about what stays in the caches of
a CPU. A GPU spends its time on starting kernels if they are small: 256 MB (docs/methods.md)."""
LEAST_POSITIONS = 256
"""Of a chunk, however large the vocabulary: each reads the head four times, which is what fewer
would wait for (with 128,000 tokens on a CPU, 32 at a time take 1.6 times as long)."""


@dataclass(frozen=True)
class Head:
    """A language model's last linear map: weight [V, D], bias [V] or None."""

    weight: Tensor
    bias: Tensor | None = None
    cap: float | None = None
    """Bounds the logits softly behind the map (Gemma 2, arXiv:2408.00118, section 2)."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[K, D] -> [K, V]"""
        return capped(F.linear(hidden, self.weight, self.bias), self.cap)


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap tanh(logits / cap), in fp32 or wider; without a cap the logits as they are."""
    return logits if cap is None else cap * torch.tanh(upcast(logits) / cap)


Term = Callable[[Tensor, slice], Tensor]
"""(student logits of some kept positions [k, V], which positions) -> nats [k]"""


def keep(hidden: Tensor, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states that predict completion tokens, and those tokens.

    The one place where targets are shifted: position t predicts token t + 1.
    hidden [B, T, D], input_ids [B, T], mask [B, T] -> [K, D], [K].
    """
    positions = mask[:, 1:].reshape(-1).nonzero().squeeze(1)
    before = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    return before.index_select(0, positions), input_ids[:, 1:].reshape(-1)[positions]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log q(target): logits [K, V], targets [K] -> nats [K]."""
    return F.cross_entropy(upcast(logits), targets, reduction="none")


def cross_entropy_term(targets: Tensor) -> Term:
    """Cross-entropy with targets [K], as a term of `head_loss`."""
    return lambda logits, part: cross_entropy(logits, targets[part])


def divergence_term(
    divergence: Divergence, teacher_hidden: Tensor, teacher_head: Head, kd_temperature: float
) -> Term:
    """A divergence from a teacher, as a term of `head_loss`.

    teacher_hidden [K, D'] of the same kept positions; both heads over one tokenizer. The
    teacher's logits too are made chunk by chunk, and get no gradient.
    """

    def term(logits: Tensor, part: slice) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher_head.logits(teacher_hidden[part])
        # Heads may be padded to different sizes; beyond the tokenizer's tokens nothing is said.
        size = min(logits.shape[-1], teacher_logits.shape[-1])
        return on_logits(divergence, logits[:, :size], teacher_logits[:, :size], kd_temperature)

    return term


def entropy_term(logits: Tensor, part: slice) -> Tensor:
    """The student's own entropy: something to watch, not to make small."""
    return entropy(logits)


def weighted(term: Term, weights: Tensor) -> Term:
    """A term whose positions count by weights [K]. The count that it is divided by stays the
    number of positions: a doubtful row pulls less, it doesn't make the others pull more."""
    return lambda logits, part: term(logits, part) * weights[part]


def head_loss(
    hidden: Tensor,
    head: Head,
    terms: dict[str, tuple[float, Term]],
    count: float,
    chunk: int | None = None,
    watched: dict[str, Term] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of terms over kept positions, over count; and each term's own.

    hidden [K, D] -> scalar with a gradient, scalars without one. `chunk` is how many positions
    have logits at once; it changes memory, not the result. `watched` terms are measured beside the
    others and add nothing to the sum.
    """
    seen = watched or {}
    size = chunk or positions_at_once(head.weight.device, head.weight.shape[0])
    inputs = (hidden, head.weight, head.bias)
    how = (head.cap, terms, seen, size, torch.is_grad_enabled())
    total, sums = _ChunkedHead.apply(*inputs, *how)  # type: ignore[no-untyped-call]
    return total / count, dict(zip([*terms, *seen], (sums / count).unbind(), strict=True))


def positions_at_once(device: torch.device, vocabulary: int) -> int:
    """Whose logits exist together."""
    alive = CHUNK_LOGITS.get(device.type, CHUNK_LOGITS["cuda"])
    return max(LEAST_POSITIONS, alive // vocabulary)


class _ChunkedHead(torch.autograd.Function):
    """Sum of terms over chunks of positions; gradients are made with each chunk's logits.

    Keeping logits until the backward pass would need [K, V]; making them again there would cost
    another product with the head. The gradient is linear in what comes from above, so it may be
    made first and scaled later. It can't be differentiated twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        cap: float | None,
        terms: dict[str, tuple[float, Term]],
        watched: dict[str, Term],
        size: int,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        """`learning`: the caller's grad mode. It is off in here, and what `ctx` says is needed
        doesn't go by it."""
        inputs = (hidden, weight, bias)
        grads = [
            torch.zeros_like(given) if learning and given is not None and needed else None
            for given, needed in zip(inputs, ctx.needs_input_grad[:3], strict=True)
        ]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        sums = torch.zeros(1 + len(terms) + len(watched), dtype=wide, device=hidden.device)
        computed = (_cast(hidden), _cast(weight), None if bias is None else _cast(bias))
        for start in range(0, hidden.shape[0], size):
            part = slice(start, start + size)
            sums += _one_chunk(computed, cap, terms, watched, part, grads)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(each := sums[1:].clone())
        return sums[0].clone(), each

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if grad is None else grad * above[0] for grad in ctx.saved_tensors)
        return (*scaled, None, None, None, None, None)


def _cast(tensor: Tensor) -> Tensor:
    """As autocast would have it, once: of what wants a gradient it keeps each cast that it makes
    until it ends, and chunks would leave it as many copies of the head."""
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def _one_chunk(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    cap: float | None,
    terms: dict[str, tuple[float, Term]],
    watched: dict[str, Term],
    part: slice,
    grads: list[Tensor | None],
) -> Tensor:
    """[weighted sum, each term's sum, each watched one's] of one chunk; gradients are added to
    `grads` in place."""
    hidden, weight, bias = inputs
    leaves = (hidden[part].detach(), weight.detach(), None if bias is None else bias.detach())
    wanted = [
        leaf.requires_grad_()
        for leaf, grad in zip(leaves, grads, strict=True)
        if leaf is not None and grad is not None
    ]
    with torch.set_grad_enabled(bool(wanted)):
        logits = Head(leaves[1], leaves[2], cap).logits(leaves[0])
        values = [term(logits, part).sum() for _, term in terms.values()]
        weighted = [w * value for (w, _), value in zip(terms.values(), values, strict=True)]
        total = torch.stack(weighted).sum()
    if wanted:
        targets = (None if grads[0] is None else grads[0][part], *grads[1:])
        made = torch.autograd.grad(total, wanted)
        for grad, new in zip((g for g in targets if g is not None), made, strict=True):
            grad += new
    with torch.no_grad():
        values += [term(logits.detach(), part).sum() for term in watched.values()]
    return torch.stack([total, *values]).detach()
