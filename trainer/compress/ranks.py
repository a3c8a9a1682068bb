"""How many ranks each of several matrices keeps under one budget. m outputs, n inputs, r rank."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.errors import BadInput

LEAST_LOSS = 1e-12
"""Shares of a squared norm below this are none."""


@dataclass(frozen=True)
class Matrix:
    """One matrix to factorize."""

    shape: tuple[int, int]
    spectrum: Tensor
    """Singular values of the scaled matrix, falling; fp64."""
    step: int = 1
    """Ranks are multiples of it."""

    @property
    def cost(self) -> int:
        """Parameters of one more rank."""
        return sum(self.shape)

    @property
    def most(self) -> int:
        """The highest rank whose factors aren't larger than the matrix."""
        return highest_rank(self.shape, self.step)

    def losses(self) -> list[float]:
        """Share of the squared norm lost at rank 0, 1, 2, ..."""
        squares = self.spectrum.square()
        left = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(1e-300)
        return [*left.tolist(), 0.0]


def highest_rank(shape: Sequence[int], step: int = 1) -> int:
    """The highest multiple of `step` with r (m + n) <= m n; `step` itself where there is none."""
    m, n = shape
    return max(step, m * n // (m + n) // step * step)


def check_step(name: str, shape: Sequence[int], step: int) -> None:
    """Refuse a multiple whose lowest rank saves nothing already."""
    m, n = shape
    if step > 1 and step * (m + n) > m * n:
        raise BadInput(
            f"rank_multiple {step} leaves {name} ({m} x {n}) no rank",
            f"Above rank {m * n // (m + n)} its factors are larger than itself. Take a smaller "
            "multiple, or name fewer targets.",
        )


def check_budget(lowest: int, count: int, budget: int) -> None:
    """Refuse a budget below the parameters that all matrices' lowest ranks take."""
    if lowest > budget:
        raise BadInput(
            f"{budget} parameters leave some matrix no rank",
            f"The lowest rank for each of the {count} targets takes {lowest}. Ask for more.",
        )


def rank_for(name: str, shape: Sequence[int], parameter_ratio: float, multiple: int = 1) -> int:
    """The largest multiple r with r (m + n) <= ratio * m n. Raises BadInput where that is 0."""
    m, n = shape
    rank = _rank_of(shape, parameter_ratio) // multiple * multiple
    if rank == 0:
        raise BadInput(
            f"parameter_ratio {parameter_ratio} leaves {name} ({m} x {n}) no rank",
            f"Rank {multiple} alone takes {multiple * (m + n) / (m * n):.3f} of its parameters; "
            "ask for more.",
        )
    return rank


def lowest(matrices: Mapping[str, Matrix]) -> dict[str, int]:
    """The lowest rank of each."""
    return {name: matrix.step for name, matrix in matrices.items()}


def parameters(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> int:
    """Numbers in all the factors."""
    return sum(matrices[name].cost * rank for name, rank in ranks.items())


def error(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> float:
    """Root of the mean, over matrices, of the share of each one's squared norm that is lost."""
    lost = [matrices[name].losses()[rank] for name, rank in ranks.items()]
    return math.sqrt(sum(lost) / len(lost))


def uniform(matrices: Mapping[str, Matrix], budget: int) -> dict[str, int]:
    """Ranks that give each matrix the same share of its parameters; the lowest at least."""
    share = budget / sum(m * n for m, n in (matrix.shape for matrix in matrices.values()))
    return {
        name: max(
            matrix.step,
            min(_rank_of(matrix.shape, share) // matrix.step * matrix.step, matrix.most),
        )
        for name, matrix in matrices.items()
    }


def loss_beside(
    matrices: Mapping[str, Matrix], ranks: Mapping[str, int], others: Mapping[str, int]
) -> float:
    """Mean, over matrices, of what each one loses relative to what it loses at other ranks."""
    weights = _weights(matrices, others)
    lost = [weights[name] * matrices[name].losses()[rank] for name, rank in ranks.items()]
    return sum(lost) / len(lost)


def within_parameters(matrices: Mapping[str, Matrix], budget: int) -> dict[str, int]:
    """Ranks whose factors have at most `budget` parameters, of least `loss_beside` uniform ones.

    Not of least `error`: that takes from matrices whose spectra fall fast, as a first layer's do,
    and their errors go through all layers behind. Greedy by loss saved per parameter. Each
    matrix' gains fall with its rank, so that nothing better exists for the parameters spent.
    Raises BadInput where the lowest ranks are too much already.
    """
    ranks = lowest(matrices)
    spent = parameters(matrices, ranks)
    check_budget(spent, len(ranks), budget)
    weights = _weights(matrices, uniform(matrices, budget))
    gains = _gains(matrices, ranks, weights)
    while gains:
        _, name = heapq.heappop(gains)
        matrix = matrices[name]
        if spent + matrix.step * matrix.cost <= budget:
            spent += matrix.step * matrix.cost
            ranks[name] += matrix.step
            _push(gains, matrix, name, ranks[name], weights[name])
    return ranks


def within_error(matrices: Mapping[str, Matrix], bound: float) -> dict[str, int]:
    """The fewest parameters whose `error` is at most `bound`, by a greedy of that error.

    Raises BadInput where factors no larger than the matrices can't be as good.
    """
    ranks = lowest(matrices)
    losses = {name: matrix.losses() for name, matrix in matrices.items()}
    lost = sum(losses[name][rank] for name, rank in ranks.items())
    weights = dict.fromkeys(matrices, 1.0)
    gains = _gains(matrices, ranks, weights)
    while lost > bound**2 * len(matrices):
        if not gains:
            raise BadInput(
                f"no ranks bring the error down to max_relative_error {bound}",
                f"The largest that still save parameters reach {error(matrices, ranks):.3f}. "
                "Allow more, or name fewer targets.",
            )
        _, name = heapq.heappop(gains)
        higher = ranks[name] + matrices[name].step
        lost -= losses[name][ranks[name]] - losses[name][higher]
        ranks[name] = higher
        _push(gains, matrices[name], name, ranks[name], 1.0)
    return ranks


def _rank_of(shape: Sequence[int], parameter_ratio: float) -> int:
    m, n = shape
    return int(parameter_ratio * m * n / (m + n))


def _weights(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> dict[str, float]:
    return {
        name: 1 / max(matrices[name].losses()[rank], LEAST_LOSS) for name, rank in ranks.items()
    }


def _gains(
    matrices: Mapping[str, Matrix], ranks: Mapping[str, int], weights: Mapping[str, float]
) -> list[tuple[float, str]]:
    gains: list[tuple[float, str]] = []
    for name, matrix in matrices.items():
        _push(gains, matrix, name, ranks[name], weights[name])
    return gains


def _push(
    gains: list[tuple[float, str]], matrix: Matrix, name: str, rank: int, weight: float
) -> None:
    """What this matrix' next rank saves per parameter, the best first."""
    higher = rank + matrix.step
    if higher <= min(matrix.most, len(matrix.spectrum)):
        squares = matrix.spectrum[rank:higher].square().sum() / matrix.spectrum.square().sum()
        heapq.heappush(gains, (-weight * float(squares) / (matrix.step * matrix.cost), name))
