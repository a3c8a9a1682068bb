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

    @property
    def cost(self) -> int:
        """Parameters of one more rank."""
        return sum(self.shape)

    @property
    def most(self) -> int:
        """The highest rank whose factors aren't larger than the matrix."""
        m, n = self.shape
        return max(1, m * n // (m + n))

    def losses(self) -> list[float]:
        """Share of the squared norm lost at rank 0, 1, 2, ..."""
        squares = self.spectrum.square()
        left = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(1e-300)
        return [*left.tolist(), 0.0]


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


def parameters(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> int:
    """Numbers in all the factors."""
    return sum(matrices[name].cost * rank for name, rank in ranks.items())


def error(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> float:
    """Root of the mean, over matrices, of the share of each one's squared norm that is lost."""
    lost = [matrices[name].losses()[rank] for name, rank in ranks.items()]
    return math.sqrt(sum(lost) / len(lost))


def uniform(matrices: Mapping[str, Matrix], budget: int) -> dict[str, int]:
    """Ranks that give each matrix the same share of its parameters; 1 at least."""
    share = budget / sum(m * n for m, n in (matrix.shape for matrix in matrices.values()))
    return {
        name: max(1, min(_rank_of(matrix.shape, share), matrix.most))
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
    Raises BadInput where rank 1 each is too much already.
    """
    ranks = dict.fromkeys(matrices, 1)
    spent = parameters(matrices, ranks)
    if spent > budget:
        raise BadInput(
            f"{budget} parameters leave some matrix no rank",
            f"Rank 1 for each of the {len(ranks)} targets takes {spent}. Ask for more.",
        )
    weights = _weights(matrices, uniform(matrices, budget))
    gains = _gains(matrices, ranks, weights)
    while gains:
        _, name = heapq.heappop(gains)
        if spent + matrices[name].cost <= budget:
            spent += matrices[name].cost
            ranks[name] += 1
            _push(gains, matrices[name], name, ranks[name], weights[name])
    return ranks


def within_error(matrices: Mapping[str, Matrix], bound: float) -> dict[str, int]:
    """The fewest parameters whose `error` is at most `bound`, by a greedy of that error.

    Raises BadInput where factors no larger than the matrices can't be as good.
    """
    ranks = dict.fromkeys(matrices, 1)
    losses = {name: matrix.losses() for name, matrix in matrices.items()}
    lost = sum(losses[name][1] for name in matrices)
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
        lost -= losses[name][ranks[name]] - losses[name][ranks[name] + 1]
        ranks[name] += 1
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
    """What one more rank of this matrix saves per parameter, the best first."""
    if rank < min(matrix.most, len(matrix.spectrum)):
        square = float(matrix.spectrum[rank].square() / matrix.spectrum.square().sum())
        heapq.heappush(gains, (-weight * square / matrix.cost, name))
