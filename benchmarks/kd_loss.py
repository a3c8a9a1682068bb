"""A divergence from hidden states, forward and backward, against its four matrix products.

No way of computing it does without them: student logits, teacher logits, the gradients of the
student's hidden states and of its head. Dense autograd, which keeps [N, V] tensors, stands beside,
and trl's chunked divergence where it is installed: that is the generalized JSD, which at beta 0 is
the forward KL, at 1 the reverse. The divergences that trl lacks are held against the products
alone, once dense autograd has had the same loss.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.peer import Trl, find_trl
from benchmarks.place import ON_GPU, PLACE, gpu_mib, timed
from benchmarks.result import Result
from trainer.objectives import (
    DIVERGENCES,
    Divergence,
    Head,
    Term,
    divergence_term,
    entropy_term,
    head_loss,
    on_logits,
)
from trainer.spec.divergence import DivergenceSpec

Kind = Literal[
    "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "tvd", "adaptive_kl"
]

BETAS: dict[Kind, float] = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
"""Of the generalized JSD, which these are."""
OTHERS: tuple[Kind, ...] = ("skew_kl", "skew_reverse_kl", "tvd", "adaptive_kl")
KINDS: tuple[Kind, ...] = (*BETAS, *OTHERS)
"""A line of growth tells which by its place here."""
MANY = 100_000
TARGET, TARGET_MANY = 1.3, 1.6
"""Of the four products' time, below and beyond MANY tokens."""
TOLERANCE, TOLERANCE_BF16 = 1e-4, 1e-2
"""Of the loss, relative: trl adds up in an order of its own, which shows in 16 bits."""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    kind: Kind
    vocabulary: int
    dtype: torch.dtype = torch.float32
    positions: int = 1_024
    rounds: int = 7
    alive: int | None = None
    """Logits that ours makes at once; None: as many as the trainer does on this device."""
    peers: bool = True
    """Whether dense autograd is timed too, and trl where it has the divergence."""

    @property
    def target(self) -> float:
        """Of the four products' time, at most."""
        return TARGET if self.vocabulary < MANY else TARGET_MANY


QUICK = [
    *(Case(kind, 2_000, positions=256, rounds=3, peers=False) for kind in OTHERS),
    *(Case("forward_kl", vocabulary, positions=256, rounds=3) for vocabulary in (2_000, 4_000)),
]
FULL = [
    *(Case(kind, 32_000, rounds=3) for kind in BETAS),
    *(Case(kind, 32_000, rounds=3, peers=False) for kind in OTHERS),
    Case("forward_kl", 32_000, torch.bfloat16, rounds=3),
    Case("forward_kl", 128_000, torch.bfloat16, rounds=3, peers=False),
    Case("forward_kl", 128_000, rounds=3),
]
"""Less than twenty minutes on one thread."""
FULL_GPU = [
    *(Case("forward_kl", v, d) for d in (torch.float32, torch.bfloat16) for v in (32_000, 128_000)),
    *(
        Case("forward_kl", 152_000, torch.bfloat16, 8_192, alive=2**power)
        for power in (22, 24, 25, 26, 27)
    ),
    *(Case(kind, 152_000, torch.bfloat16, 8_192) for kind in BETAS),
]


@dataclass(frozen=True)
class Inputs:
    """N positions; student width D, teacher width D', V tokens."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    kind: Kind
    chunk: int | None = None
    """Positions whose logits ours makes at once."""


def run(quick: bool) -> Result:
    """The ratio of the last case; growth over all of them."""
    cases = QUICK if quick else FULL_GPU if ON_GPU else FULL
    growth = [measure(case) for case in cases]
    last = growth[-1]
    return Result(
        name="kd_loss",
        ours=last["ours_s"],
        unit="s",
        ratio=last["ratio"],
        target=f"<= {TARGET} x the four products, <= {TARGET_MANY} x beyond {MANY:,} tokens",
        met=all(row["ratio"] <= case.target for row, case in zip(growth, cases, strict=True)),
        limit=last["floor_s"],
        growth=growth,
    )


def measure(case: Case) -> dict[str, float]:
    """Medians over interleaved rounds, in seconds; the losses are compared before any timing."""
    inputs = make_inputs(case)
    peers: dict[str, Callable[[Inputs], float]] = {"dense": dense}
    peer = find_trl()
    if peer is not None and case.peers and case.kind in BETAS:
        peers["trl"] = partial(trl, peer)
    found = ours(inputs)
    tolerance = found * (TOLERANCE_BF16 if case.dtype == torch.bfloat16 else TOLERANCE)
    for name, side in peers.items():
        if abs(found - side(inputs)) > tolerance:
            raise AssertionError(f"ours and {name} compute different losses")
    sides = {"ours": ours, "floor": floor, **(peers if case.peers else {})}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(case.rounds):
        for name, side in sides.items():
            times[name].append(timed(partial(side, inputs)))
    memory = {f"{name}_mib": gpu_mib(partial(sides[name], inputs)) for name in sides if ON_GPU}
    return {
        **{"vocabulary": case.vocabulary, "kind": KINDS.index(case.kind)},
        **({"beta": BETAS[case.kind]} if case.kind in BETAS else {}),
        "positions": case.positions,
        "bits": torch.finfo(case.dtype).bits,
        **({} if inputs.chunk is None else {"chunk": inputs.chunk}),
        **{f"{name}_s": statistics.median(each) for name, each in times.items()},
        "ratio": statistics.median(
            a / b for a, b in zip(times["ours"], times["floor"], strict=True)
        ),
        **memory,
    }


def make_inputs(case: Case) -> Inputs:
    """Student D = 1024, teacher D' = 2048, quick or not."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(*shape, generator=generator).div(float(shape[-1]) ** 0.5)
        return drawn.to(PLACE, case.dtype)

    return Inputs(
        random(case.positions, 1_024).requires_grad_(),
        random(case.vocabulary, 1_024).requires_grad_(),
        random(case.positions, 2_048) * 10,
        random(case.vocabulary, 2_048),
        case.kind,
        None if case.alive is None else max(1, case.alive // case.vocabulary),
    )


def ours(inputs: Inputs) -> float:
    """The trainer's chunked loss, backward included, and the entropy that it watches."""
    term = divergence_term(
        divergence(inputs.kind), inputs.teacher_hidden, Head(inputs.teacher_weight), 1.0
    )
    count = inputs.hidden.shape[0]
    watched: dict[str, Term] = {"entropy": entropy_term}
    head, terms = Head(inputs.weight), {"kl": (1.0, term)}
    loss, _ = head_loss(inputs.hidden, head, terms, count, inputs.chunk, watched)
    return backward(loss, inputs)


def dense(inputs: Inputs) -> float:
    """The same loss by plain autograd."""
    student = inputs.hidden @ inputs.weight.T
    with torch.no_grad():
        teacher = inputs.teacher_hidden @ inputs.teacher_weight.T
    return backward(on_logits(divergence(inputs.kind), student, teacher, 1.0).mean(), inputs)


def trl(peer: Trl, inputs: Inputs) -> float:
    """The same loss by trl's tiles; it computes the student's entropy beside it."""
    count = inputs.hidden.shape[0]
    loss, _, _ = peer.chunked(
        inputs.hidden[None],
        inputs.teacher_hidden[None],
        inputs.weight,
        inputs.teacher_weight,
        torch.ones(1, count, dtype=torch.long, device=PLACE),
        BETAS[inputs.kind],
        count,
    )
    return backward(loss, inputs)


def divergence(kind: Kind) -> Divergence:
    """With what its spec has by default."""
    spec: DivergenceSpec = TypeAdapter(DivergenceSpec).validate_python({"kind": kind})
    return DIVERGENCES[kind](spec)


def backward(loss: Tensor, inputs: Inputs) -> float:
    """Gradients of what is trained, thrown away; the loss."""
    torch.autograd.grad(loss, (inputs.hidden, inputs.weight))
    return float(loss.detach())


def floor(inputs: Inputs) -> float:
    """The four products alone, on tensors of the same shapes."""
    with torch.no_grad():
        logits = inputs.hidden @ inputs.weight.T
        teacher = inputs.teacher_hidden @ inputs.teacher_weight.T
        to_hidden = logits @ inputs.weight
        to_weight = teacher.T @ inputs.hidden
    return float(to_hidden[0, 0] + to_weight[0, 0])
