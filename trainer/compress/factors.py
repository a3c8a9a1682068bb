"""Low-rank factors by truncated SVD of scaled weights.

A linear's weight W [m, n] becomes left [m, r] @ right [r, n]: the truncated SVD of W S, with S^-1
folded into the right factor. X [N, n] are its inputs on calibration rows.

- whitening (SVD-LLM, arXiv:2403.07378): S S^T = X^T X, so that |(W - W') X^T|_F = |(W - W') S|_F
  and W' is the best of its rank on them;
- activation (ASVD, arXiv:2312.05821): S = diag(mean|x_j| ^ alpha);
- none: S = I (Eckart and Young, 1936).

Singular vectors and values are those of the smaller Gram matrix of W S, at a fraction of an SVD's
time: what that blurs are singular values under 1e-8 of the largest. Of a W that is wider than high
it is W S S^T W^T, and of the factors S falls out (U U^T W S S^-1): no S is made for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.compress.moments import DAMPING, Moments, damped_cholesky
from trainer.spec import SvdFactorize


@dataclass
class Scale:
    """S of the linears that read one tensor: by its square, by its diagonal, or I."""

    square: Tensor | None = None
    """S S^T [n, n]"""
    diagonal: Tensor | None = None
    """[n]"""
    damping: float = 0.0
    """What it took to make S of its square; 0 where nothing asked for that."""
    _lower: Tensor | None = None

    def outer(self, weight: Tensor) -> Tensor:
        """W S S^T W^T [m, m]"""
        if self.square is not None:
            return weight @ self.square @ weight.T
        scaled = self.apply(weight)
        return scaled @ scaled.T

    def apply(self, weight: Tensor) -> Tensor:
        """W S [m, n]"""
        if self.square is not None:
            return weight @ self._factor(self.square)
        return weight if self.diagonal is None else weight * self.diagonal

    def undo(self, right: Tensor) -> Tensor:
        """right S^-1"""
        if self.square is not None:
            undone: Tensor = torch.linalg.solve_triangular(
                self._factor(self.square), right, upper=False, left=False
            )
            return undone
        return right if self.diagonal is None else right / self.diagonal

    def _factor(self, square: Tensor) -> Tensor:
        """S, lower triangular, made once."""
        if self._lower is None:
            self._lower, self.damping = damped_cholesky(square)
        return self._lower


def make_scale(stage: SvdFactorize, moments: Moments) -> Scale:
    """S of a linear from what it is given."""
    if stage.scaling == "whitening":
        return Scale(square=moments.gram)
    if stage.scaling == "activation":
        # an input that is always 0 must not make S singular
        least = moments.mean_abs.max().clamp_min(1e-30) * DAMPING
        return Scale(diagonal=moments.mean_abs.clamp_min(least) ** stage.alpha)
    return Scale()


def make_scales(stage: SvdFactorize, moments: Mapping[str, Moments]) -> dict[str, Scale]:
    """By linear; those that read one tensor share one S."""
    distinct = {id(each): each for each in moments.values()}
    made = {key: make_scale(stage, each) for key, each in distinct.items()}
    return {name: made[id(each)] for name, each in moments.items()}


def factorize(weight: Tensor, scale: Scale, rank: int) -> tuple[Tensor, Tensor]:
    """left [m, r], right [r, n] that minimise |(W - left right) S|_F; fp64."""
    if weight.shape[0] <= weight.shape[1]:
        vectors, roots = leading(scale.outer(weight), rank)
        return vectors * roots, (vectors.T @ weight) / roots[:, None]
    scaled = scale.apply(weight)
    vectors, roots = leading(scaled.T @ scaled, rank)
    return (scaled @ vectors) / roots, scale.undo(roots[:, None] * vectors.T)


def singular_values(weight: Tensor, scale: Scale) -> Tensor:
    """Of W S, falling; [min(m, n)]."""
    if weight.shape[0] <= weight.shape[1]:
        gram = scale.outer(weight)
    else:
        scaled = scale.apply(weight)
        gram = scaled.T @ scaled
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.flip(0).clamp_min(0).sqrt()


def leading(gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors [d, r] of the largest eigenvalues, these falling; and their fourth roots, the
    square roots of singular values, so that both factors have like magnitudes."""
    values, vectors = torch.linalg.eigh(gram)
    roots = values.flip(0)[:rank].clamp_min(0) ** 0.25
    least = roots[0].clamp_min(1e-30) * 1e-6  # nothing is divided by zero
    return vectors.flip(1)[:, :rank], roots.clamp_min(least)


def factorize_plain(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left [m, r], right [r, n] that minimise |W - left right|_F (Eckart and Young, 1936).

    The singular values are shared out evenly, so that both factors have like magnitudes.
    """
    u, values, vt = torch.linalg.svd(weight, full_matrices=False)
    roots = values[:rank].sqrt()
    return u[:, :rank] * roots, roots[:, None] * vt[:rank]


def relative_error(weight: Tensor, approximation: Tensor, gram: Tensor) -> float:
    """|(W - W') X^T|_F / |W X^T|_F on the calibration rows."""
    lost, whole = weight - approximation, weight
    squared = ((lost @ gram) * lost).sum().clamp_min(0) / ((whole @ gram) * whole).sum()
    return float(squared.sqrt())
