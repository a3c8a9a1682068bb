"""Every divergence beside its definition, written term by term in plain Python."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter
from torch import Tensor

from trainer.objectives import DIVERGENCES, Divergence
from trainer.spec.divergence import DivergenceSpec

Row = list[float]


def kl(a: Row, b: Row) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def mix(a: Row, b: Row, share: float) -> Row:
    return [share * x + (1 - share) * y for x, y in zip(a, b, strict=True)]


def jensen_shannon(beta: float) -> Callable[[Row, Row], float]:
    return lambda p, q: beta * kl(p, mix(p, q, beta)) + (1 - beta) * kl(q, mix(p, q, beta))


def adaptive(head_mass: float) -> Callable[[Row, Row], float]:
    def value(p: Row, q: Row) -> float:
        head, mass = set[int](), 0.0
        for index in sorted(range(len(p)), key=lambda i: -p[i]):
            if mass >= head_mass:
                break
            head.add(index)
            mass += p[index]
        gaps = [abs(x - y) for x, y in zip(p, q, strict=True)]
        share = sum(gaps[i] for i in head) / sum(gaps)
        return share * kl(p, q) + (1 - share) * kl(q, p)

    return value


@dataclass(frozen=True)
class Case:
    """A divergence's fields, its definition, and its value for p = (3/4, 1/4), q = (1/2, 1/2)."""

    fields: dict[str, object]
    definition: Callable[[Row, Row], float]
    by_hand: float

    @property
    def name(self) -> str:
        return "-".join(map(str, self.fields.values()))

    @property
    def divergence(self) -> Divergence:
        spec = TypeAdapter[DivergenceSpec](DivergenceSpec).validate_python(self.fields)
        return DIVERGENCES[spec.kind](spec)


LN2, LN3, LN5 = math.log(2), math.log(3), math.log(5)
FORWARD = 0.75 * LN3 - LN2  # 3/4 ln(3/2) + 1/4 ln(1/2)
REVERSE = LN2 - 0.5 * LN3  # 1/2 ln(2/3) + 1/2 ln 2
CASES = (
    Case({"kind": "forward_kl"}, kl, FORWARD),
    Case({"kind": "reverse_kl"}, lambda p, q: kl(q, p), REVERSE),
    # m = 5/8, 3/8
    Case(
        {"kind": "jsd", "beta": 0.5},
        jensen_shannon(0.5),
        0.5 * (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3))
        + 0.5 * (0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)),
    ),
    # m = 9/16, 7/16
    Case(
        {"kind": "jsd", "beta": 0.25},
        jensen_shannon(0.25),
        0.25 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4 / 7))
        + 0.75 * (0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7)),
    ),
    Case({"kind": "jsd", "beta": 0.0}, kl, FORWARD),
    Case({"kind": "jsd", "beta": 1.0}, lambda p, q: kl(q, p), REVERSE),
    # m = 9/16, 7/16
    Case(
        {"kind": "skew_kl", "alpha": 0.25},
        lambda p, q: kl(p, mix(p, q, 0.25)),
        0.75 * math.log(4 / 3) + 0.25 * math.log(4 / 7),
    ),
    Case({"kind": "skew_kl", "alpha": 0.0}, kl, FORWARD),
    # m = 11/16, 5/16
    Case(
        {"kind": "skew_reverse_kl", "alpha": 0.25},
        lambda p, q: kl(q, mix(q, p, 0.25)),
        0.5 * math.log(8 / 11) + 0.5 * math.log(8 / 5),
    ),
    Case({"kind": "skew_reverse_kl", "alpha": 0.0}, lambda p, q: kl(q, p), REVERSE),
    Case(
        {"kind": "tvd"},
        lambda p, q: 0.5 * sum(abs(x - y) for x, y in zip(p, q, strict=True)),
        0.25,
    ),
    # The head is the first token: half of the gap.
    Case({"kind": "adaptive_kl", "head_mass": 0.5}, adaptive(0.5), 0.5 * (FORWARD + REVERSE)),
    # Both tokens are needed for 0.9: all head, so the forward KL.
    Case({"kind": "adaptive_kl", "head_mass": 0.9}, adaptive(0.9), FORWARD),
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(logits: Row) -> Row:
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]
