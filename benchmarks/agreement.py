"""Losses beside those of trl 1.16, in fp64: the largest difference of values and gradients.

Compared are its GKD's and its distillation trainer's generalized JSD (without the factor of the
temperature's square, which trl leaves out), the student's entropy, and its ULD's distance of sorted
probabilities at places that both tokenizers share. The distillation trainer's works in fp32
whatever it is given: it has a bound of its own.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.peer import Trl, need_trl
from benchmarks.result import Result
from trainer.objectives import DIVERGENCES, Head, divergence_term, entropy, head_loss, on_logits
from trainer.objectives.sorted_distance import sorted_distance
from trainer.spec.divergence import JensenShannon

TOLERANCE = 1e-12
TOLERANCE_FP32 = 1e-5
SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
TEMPERATURES = (1.0, 2.5)
N, V, VT, D, DT = 24, 300, 260, 16, 24
"""Kept positions; the student's vocabulary and another one; widths of student and teacher."""


@dataclass(frozen=True)
class Pair:
    """Hidden states and heads of a student and a teacher, fp64, and their logits."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        """[N, V] of both."""
        return self.hidden @ self.weight.T, self.teacher_hidden @ self.teacher_weight.T


def run(quick: bool) -> Result:
    """The largest difference of all cases; quick or not, they are the same."""
    peer = need_trl()
    pair = make_pair()
    growth = [divergences(peer, pair, beta, tau) for beta in SHARES for tau in TEMPERATURES]
    growth.append(distance(peer))
    worst = _largest(growth, ("gkd", "gkd_gradient", "dense", "uld"))
    narrow = _largest(growth, ("chunked", "entropy"))
    return Result(
        name="agreement",
        ours=worst,
        unit="nats, the largest difference in fp64",
        ratio=worst / TOLERANCE,
        target=f"<= {TOLERANCE}, and <= {TOLERANCE_FP32} from what trl computes in fp32",
        met=worst <= TOLERANCE and narrow <= TOLERANCE_FP32,
        peer=TOLERANCE,
        growth=growth,
    )


def make_pair() -> Pair:
    """Seeded; the heads make distributions that are neither flat nor certain."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, D), (V, D), (N, DT), (V, DT))
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return Pair(made[0].requires_grad_(), made[1].requires_grad_(), made[2], made[3])


def divergences(peer: Trl, pair: Pair, beta: float, tau: float) -> dict[str, float]:
    """Ours through the chunked head; both of trl's on the same distributions."""
    divergence = DIVERGENCES["jsd"](JensenShannon(kind="jsd", beta=beta))
    term = divergence_term(divergence, pair.teacher_hidden, Head(pair.teacher_weight), tau)
    loss, _ = head_loss(pair.hidden, Head(pair.weight), {"jsd": (1.0, term)}, float(N), chunk=7)
    ours, gradients = loss / tau**2, _gradients(loss / tau**2, pair)
    student, teacher = pair.logits
    direct = on_logits(divergence, student, teacher, tau).mean() / tau**2
    gkd = peer.jsd(student[None], teacher[None], beta=beta, temperature=tau, num_items_in_batch=N)
    chunked, entropies, _ = peer.chunked(
        pair.hidden[None],
        pair.teacher_hidden[None],
        pair.weight,
        pair.teacher_weight,
        torch.ones(1, N, dtype=torch.long),
        beta,
        N,
        temperature=tau,
    )
    row = {
        "beta": beta,
        "temperature": tau,
        "gkd": _apart(ours, gkd),
        "gkd_gradient": _furthest(gradients, _gradients(gkd, pair)),
        "chunked": _apart(ours, chunked),
        "dense": _apart(ours, direct),
    }
    # Its entropy is of the tempered distribution, ours of the student's own.
    return row if tau != 1 else {**row, "entropy": _apart(entropy(student).sum(), entropies)}


def distance(peer: Trl) -> dict[str, float]:
    """One row of N tokens, each beginning at the same character on both sides."""
    generator = torch.Generator().manual_seed(1)
    student, teacher = (
        torch.randn(1, N + 1, size, generator=generator, dtype=torch.float64) * 3
        for size in (V, VT)
    )
    settings = SimpleNamespace(
        uld_crossentropy_weight=0.0,
        uld_distillation_weight=1.0,
        uld_student_temperature=1.0,
        uld_teacher_temperature=1.0,
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        use_extended_uld=False,
        uld_token_merge_strategy="bayesian",
    )
    labels = torch.arange(N + 1)[None]
    labels = labels.masked_fill(labels == 0, -100)
    theirs = peer.uld(settings)(student, teacher, labels, labels, labels, labels)
    ours = sorted_distance(student[0, :-1], teacher[0, :-1], 1.0).mean()
    return {"vocabulary": V, "teacher_vocabulary": VT, "uld": _apart(ours, theirs)}


def _largest(rows: list[dict[str, float]], columns: tuple[str, ...]) -> float:
    return max(row[column] for row in rows for column in columns if column in row)


def _gradients(loss: Tensor, pair: Pair) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, (pair.hidden, pair.weight), retain_graph=True)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return abs(ours.item() - theirs.item())


def _furthest(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
