"""Low-rank factors by truncated SVD of scaled weights.

A linear's weight W [m, n] becomes left [m, r] @ right [r, n]: the truncated SVD of W S, with S^-1
folded into the right factor. X [N, n] are its inputs on calibration rows.

- whitening (SVD-LLM, arXiv:2403.07378): S S^T = X^T X, so that |(W - W') X^T|_F = |(W - W') S|_F
  and W' is the best of its rank on them;
- activation (ASVD, arXiv:2312.05821): S = diag(mean|x_j| ^ alpha);
- none: S = I (Eckart and Young, 1936).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from retort_lowrank import FACTORIZED
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, pick_linears
from trainer.compress.moments import DAMPING, Collect, Moments, collect, damped_cholesky
from trainer.compress.outcome import Outcome
from trainer.compress.rank_search import within_loss
from trainer.compress.ranks import (
    Matrix,
    error,
    parameters,
    rank_for,
    within_error,
    within_parameters,
)
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import SvdFactorize

HEADER_BYTES = 200
"""What a safetensors file says of each tensor, at most; a budget in bytes leaves room for it."""


@dataclass(frozen=True)
class Scale:
    """S of a linear: lower triangular [n, n], a diagonal [n], or None for I."""

    lower: Tensor | None = None
    diagonal: Tensor | None = None
    damping: float | None = None

    def apply(self, weight: Tensor) -> Tensor:
        """W S"""
        if self.lower is not None:
            return weight @ self.lower
        return weight if self.diagonal is None else weight * self.diagonal

    def undo(self, right: Tensor) -> Tensor:
        """right S^-1"""
        if self.lower is not None:
            undone: Tensor = torch.linalg.solve_triangular(
                self.lower, right, upper=False, left=False
            )
            return undone
        return right if self.diagonal is None else right / self.diagonal


def apply(
    stage: SvdFactorize,
    model: PreTrainedModel,
    rows: Sequence[TokenRow],
    gather: Collect = collect,
) -> Outcome:
    """A model of the factorized type with the targets in two factors; the rest is shared.

    Activations are the unfactorized model's. Raises BadInput for an architecture without a
    factorized type, for targets that the layers lack, and for budgets that can't be met.
    """
    check_type(model)
    layout = find_layers(model)
    targets = [pick_linears(layer, stage.targets) for layer in layout.layers]
    ranks, allocation = _choose_ranks(stage, model, rows, gather)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, dict[str, float]] = {}
    dampings = []
    for index, moments in enumerate(gather(model, rows)):
        scales = _scales(stage, {name: moments[name] for name in targets[index]})
        for name, linear in targets[index].items():
            full, weight = f"{layout.name}.{index}.{name}", linear.weight.detach().double()
            left, right = factorize(weight, scales[name], ranks[full])
            dampings.append(scales[name].damping or 0.0)
            factors[full] = (left, right)
            lost = relative_error(weight, left @ right, moments[name].gram)
            errors[full] = {"rank": ranks[full], "relative_error": lost}
    details = {"linears": errors, "largest_damping": max(dampings), **allocation}
    return _outcome(model, factors, details)


def make_scale(stage: SvdFactorize, moments: Moments) -> Scale:
    """S of a linear from what it is given."""
    if stage.scaling == "whitening":
        lower, damping = damped_cholesky(moments.gram)
        return Scale(lower=lower, damping=damping)
    if stage.scaling == "activation":
        # an input that is always 0 must not make S singular
        least = moments.mean_abs.max().clamp_min(1e-30) * DAMPING
        return Scale(diagonal=moments.mean_abs.clamp_min(least) ** stage.alpha)
    return Scale()


def factorize(weight: Tensor, scale: Scale, rank: int) -> tuple[Tensor, Tensor]:
    """left [m, r], right [r, n] that minimise |(W - left right) S|_F; fp64.

    Singular vectors as eigenvectors of the smaller Gram matrix of W S, at a fraction of an SVD's
    time: what that blurs are singular values under 1e-8 of the largest. On the left side S falls
    out: U U^T W S S^-1.
    """
    scaled = scale.apply(weight)
    if weight.shape[0] <= weight.shape[1]:
        vectors, roots = leading(scaled @ scaled.T, rank)
        return vectors * roots, (vectors.T @ weight) / roots[:, None]
    vectors, roots = leading(scaled.T @ scaled, rank)
    return (scaled @ vectors) / roots, scale.undo(roots[:, None] * vectors.T)


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


def check_type(model: PreTrainedModel) -> None:
    """Refuse what has no factorized type."""
    if model.config.model_type in FACTORIZED:
        return
    factorized = model.config.model_type.startswith("retort_lowrank")
    raise BadInput(
        f"a {model.config.model_type} model can't be factorized",
        "It is factorized already: name all targets in one stage."
        if factorized
        else f"There is no factorized type for it yet; there is one for {', '.join(FACTORIZED)}.",
    )


def _scales(stage: SvdFactorize, moments: Mapping[str, Moments]) -> dict[str, Scale]:
    """Linears that read one tensor share one S."""
    made = {id(each): make_scale(stage, each) for each in moments.values()}
    return {name: made[id(each)] for name, each in moments.items()}


def _choose_ranks(
    stage: SvdFactorize, model: PreTrainedModel, rows: Sequence[TokenRow], gather: Collect
) -> tuple[dict[str, int], dict[str, Any]]:
    """Each target's rank by full name, and what the report says of how they were chosen."""
    layout = find_layers(model)
    shapes = {
        f"{layout.name}.{index}.{name}": (linear.out_features, linear.in_features)
        for index, layer in enumerate(layout.layers)
        for name, linear in pick_linears(layer, stage.targets).items()
    }
    ratio = stage.parameter_ratio
    if stage.max_bytes is not None:
        whole = sum(parameter.numel() for parameter in model.parameters())
        size = torch.empty((), dtype=model.dtype).element_size()
        ratio = ratio_for_bytes(whole, size, shapes, stage.max_bytes)
    if stage.ranks == "uniform":
        ranks = {
            name: rank_for(name, shape, ratio, stage.rank_multiple)
            for name, shape in shapes.items()
        }
        return ranks, {"parameter_ratio": ratio}
    matrices = _spectra(stage, model, rows, gather)
    said: dict[str, Any] = {}
    if stage.max_loss_increase is not None:
        factors = _largest(stage, model, matrices, rows, gather)
        found = within_loss(model, matrices, factors, rows, stage.max_loss_increase)
        ranks = found.ranks
        said = {"loss_before": found.loss_before, "loss_after": found.loss_after}
    elif stage.max_relative_error is not None:
        ranks = within_error(matrices, stage.max_relative_error)
    else:
        ranks = within_parameters(matrices, int(ratio * sum(m * n for m, n in shapes.values())))
    return ranks, {**said, **_beside_uniform(matrices, ranks)}


def _beside_uniform(matrices: Mapping[str, Matrix], ranks: Mapping[str, int]) -> dict[str, Any]:
    """What was spent, and what the same share for every target would lose."""
    spent = parameters(matrices, ranks)
    share = spent / sum(m * n for m, n in (matrix.shape for matrix in matrices.values()))
    even = {name: rank_for(name, matrix.shape, share) for name, matrix in matrices.items()}
    return {
        "parameter_ratio": share,
        "error_by_loss": error(matrices, ranks),
        "error_uniform": error(matrices, even),
        "parameters_by_loss": spent,
        "parameters_uniform": parameters(matrices, even),
    }


def _largest(
    stage: SvdFactorize,
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    rows: Sequence[TokenRow],
    gather: Collect,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors at the largest rank that saves parameters, by full name."""
    layout, found = find_layers(model), {}
    for index, moments in enumerate(gather(model, rows)):
        linears = pick_linears(layout.layers[index], stage.targets)
        scales = _scales(stage, {name: moments[name] for name in linears})
        for name, linear in linears.items():
            full, weight = f"{layout.name}.{index}.{name}", linear.weight.detach().double()
            found[full] = factorize(weight, scales[name], matrices[full].most)
    return found


def ratio_for_bytes(
    parameters_before: int, item_bytes: int, shapes: Mapping[str, tuple[int, int]], max_bytes: int
) -> float:
    """The share of the targets' parameters that a model of `max_bytes` leaves them."""
    within = sum(m * n for m, n in shapes.values())
    outside = parameters_before - within
    # every tensor has an entry in the file's header; at least as many more as there are targets
    header = HEADER_BYTES * 3 * len(shapes)
    ratio = ((max_bytes - header) / item_bytes - outside) / within
    if not 0 < ratio < 1:
        raise BadInput(
            f"max_bytes {max_bytes} can't be met by factorizing these targets",
            f"The model takes {parameters_before * item_bytes} bytes, {outside * item_bytes} of "
            "them outside of the targets: ask for something between the two.",
        )
    return ratio


def _spectra(
    stage: SvdFactorize, model: PreTrainedModel, rows: Sequence[TokenRow], gather: Collect
) -> dict[str, Matrix]:
    layout = find_layers(model)
    found = {}
    for index, moments in enumerate(gather(model, rows)):
        linears = pick_linears(layout.layers[index], stage.targets)
        scales = _scales(stage, {name: moments[name] for name in linears})
        for name, linear in linears.items():
            values = torch.linalg.svdvals(scales[name].apply(linear.weight.detach().double()))
            shape = (linear.out_features, linear.in_features)
            found[f"{layout.name}.{index}.{name}"] = Matrix(shape, values)
    return found


def _outcome(
    model: PreTrainedModel,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    details: dict[str, Any],
) -> Outcome:
    config_class, model_class = FACTORIZED[model.config.model_type]
    prefix = f"{model.base_model_prefix}."
    values = model.config.to_dict()
    for name in ("model_type", "architectures", "transformers_version"):
        values.pop(name, None)
    ranks = {name.removeprefix(prefix): left.shape[1] for name, (left, _) in factors.items()}
    made: PreTrainedModel = model_class(config_class(**{**values, "ranks": ranks}))
    for parameter in made.parameters():  # not buffers: rotary frequencies stay in fp32
        parameter.data = parameter.data.to(model.device, model.dtype)
    made.load_state_dict(_factorized_state(model, factors))
    made.tie_weights()
    made.generation_config = model.generation_config
    made.train(False)
    return Outcome(made, details)


def _factorized_state(
    model: PreTrainedModel, factors: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    state = dict(model.state_dict())
    for name, (left, right) in factors.items():
        weight = state.pop(f"{name}.weight")
        state[f"{name}.left.weight"] = left.to(weight)
        state[f"{name}.right.weight"] = right.to(weight)
        if f"{name}.bias" in state:
            state[f"{name}.left.bias"] = state.pop(f"{name}.bias")
    return state
