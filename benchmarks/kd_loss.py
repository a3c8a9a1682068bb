"""Forward KL from hidden states, forward and backward, against its four matrix products.

No way of computing it does without them: student logits, teacher logits, the gradients of the
student's hidden states and of its head. Dense autograd, which keeps [N, V] tensors, stands beside,
and trl's chunked divergence where it is installed.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.peer import Trl, find_trl
from benchmarks.result import Result
from trainer.objectives import Head, Term, divergence_term, entropy_term, forward_kl, head_loss
from trainer.objectives.divergences import forward

TARGET = 1.3
ROUNDS = 7
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Inputs:
    """N positions; student width D, teacher width D', V tokens."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor


def run(quick: bool) -> Result:
    """The ratio at the largest vocabulary; growth over vocabularies."""
    growth = [
        measure(vocabulary, quick) for vocabulary in ((2_000, 4_000) if quick else (8_000, 32_000))
    ]
    last = growth[-1]
    return Result(
        name="kd_loss",
        ours=last["ours_s"],
        unit="s",
        ratio=last["ratio"],
        target=f"<= {TARGET} x the four products",
        met=last["ratio"] <= TARGET,
        limit=last["floor_s"],
        growth=growth,
    )


def measure(vocabulary: int, quick: bool) -> dict[str, float]:
    """Medians over interleaved rounds, in seconds; both losses are compared before any timing."""
    inputs = make_inputs(256 if quick else 1_024, vocabulary)
    if abs(ours(inputs) - dense(inputs)) > TOLERANCE:
        raise AssertionError("the two sides compute different losses")
    sides: dict[str, Callable[[Inputs], float]] = {"ours": ours, "floor": floor, "dense": dense}
    peer = find_trl()
    if peer is not None:
        sides["trl"] = partial(trl, peer)
        if abs(ours(inputs) - trl(peer, inputs)) > TOLERANCE:
            raise AssertionError("trl computes another loss")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(3 if quick else ROUNDS):
        for name, side in sides.items():
            begun = time.perf_counter()
            side(inputs)
            times[name].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(times["ours"], times["floor"], strict=True)]
    medians = {f"{name}_s": statistics.median(found) for name, found in times.items()}
    return {"vocabulary": vocabulary, **medians, "ratio": statistics.median(ratios)}


def make_inputs(positions: int, vocabulary: int) -> Inputs:
    """Student D = 1024, teacher D' = 2048, quick or not."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(*shape, generator=generator)
        return drawn.div(float(shape[-1]) ** 0.5)

    return Inputs(
        random(positions, 1_024).requires_grad_(),
        random(vocabulary, 1_024).requires_grad_(),
        random(positions, 2_048) * 10,
        random(vocabulary, 2_048),
    )


def ours(inputs: Inputs) -> float:
    """The trainer's chunked loss, backward included, and the entropy that it watches."""
    term = divergence_term(forward, inputs.teacher_hidden, Head(inputs.teacher_weight), 1.0)
    count = inputs.hidden.shape[0]
    watched: dict[str, Term] = {"entropy": entropy_term}
    terms = {"kl": (1.0, term)}
    loss, _ = head_loss(inputs.hidden, Head(inputs.weight), terms, count, watched=watched)
    return backward(loss, inputs)


def dense(inputs: Inputs) -> float:
    """The same loss by plain autograd."""
    student = inputs.hidden @ inputs.weight.T
    with torch.no_grad():
        teacher = inputs.teacher_hidden @ inputs.teacher_weight.T
    return backward(forward_kl(student, teacher, 1.0).mean(), inputs)


def trl(peer: Trl, inputs: Inputs) -> float:
    """The same loss by trl's tiles; it computes the student's entropy beside it."""
    count = inputs.hidden.shape[0]
    loss, _, _ = peer.chunked(
        inputs.hidden[None],
        inputs.teacher_hidden[None],
        inputs.weight,
        inputs.teacher_weight,
        torch.ones(1, count, dtype=torch.long),
        0.0,
        count,
    )
    return backward(loss, inputs)


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
