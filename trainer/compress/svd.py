"""Low-rank factors by activation-whitened truncated SVD (SVD-LLM, arXiv:2403.07378).

A linear's weight W [m, n] becomes left [m, r] @ right [r, n]. X [N, n] are its inputs on
calibration rows, and S S^T = X^T X its Cholesky factor: |(W - W') X^T|_F = |(W - W') S|_F, so the
truncated SVD of W S, with S^-1 folded into the right factor, is the best W' of its rank on them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from retort_lowrank import FACTORIZED
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.activations import observe
from trainer.compress.layout import find_layers, pick_linears
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import SvdFactorize

DAMPING = 1e-6
"""Added to the diagonal of X^T X, as a share of its mean; raised tenfold until Cholesky works."""


def apply(stage: SvdFactorize, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """A model of the factorized type with the targets in two factors; the rest is shared.

    Activations are the unfactorized model's. Raises BadInput for an architecture without a
    factorized type and for targets that the layers lack.
    """
    _check_type(model)
    layout = find_layers(model)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, dict[str, float]] = {}
    for index, layer in enumerate(layout.layers):
        linears = pick_linears(layer, stage.targets)
        grams = gram_matrices(model, linears, rows, layer)
        whitenings = {id(gram): whitening(gram) for gram in grams.values()}
        for name, linear in linears.items():
            weight, gram = linear.weight.detach().double(), grams[name]
            rank = rank_for(name, weight.shape, stage.parameter_ratio)
            if stage.whitening:
                left, right = factorize_whitened(weight, whitenings[id(gram)], rank)
            else:
                left, right = factorize_plain(weight, rank)
            full = f"{layout.name}.{index}.{name}"
            factors[full] = (left, right)
            errors[full] = {
                "rank": rank,
                "relative_error": relative_error(weight, left @ right, gram),
            }
    return _outcome(model, factors, errors)


def rank_for(name: str, shape: Sequence[int], parameter_ratio: float) -> int:
    """The largest r with r (m + n) <= ratio * m n. Raises BadInput where that is 0."""
    m, n = shape
    rank = int(parameter_ratio * m * n / (m + n))
    if rank == 0:
        raise BadInput(
            f"parameter_ratio {parameter_ratio} leaves {name} ({m} x {n}) no rank",
            f"Rank 1 alone takes {(m + n) / (m * n):.3f} of its parameters; ask for more.",
        )
    return rank


def gram_matrices(
    model: PreTrainedModel,
    linears: Mapping[str, nn.Linear],
    rows: Sequence[TokenRow],
    layer: nn.Module,
) -> dict[str, Tensor]:
    """X^T X [n, n] in fp64 for each linear; linears fed the same tensor share one object."""
    grams: dict[str, Tensor] = {}
    fed: dict[str, Tensor] = {}

    def see(name: str, x: Tensor, mask: Tensor) -> None:
        sharer = next((other for other, tensor in fed.items() if tensor is x), None)
        fed[name] = x
        if sharer is not None:
            grams[name] = grams[sharer]
            return
        kept = x[mask].double()
        if name in grams:
            grams[name] += kept.T @ kept
        else:
            grams[name] = kept.T @ kept

    observe(model, linears, rows, see, until=layer)
    return grams


def whitening(gram: Tensor) -> Tensor:
    """Lower S [n, n] with S S^T = gram + damping; fp64."""
    scale = gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    damping = DAMPING
    while True:
        damped = gram + damping * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            return lower
        damping *= 10


def factorize_whitened(weight: Tensor, whitener: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left [m, r], right [r, n] that minimise |(W - left right) S|_F; fp64."""
    left, scaled = factorize_plain(weight @ whitener, rank)
    # right S = scaled, with S lower triangular
    right = torch.linalg.solve_triangular(whitener, scaled, upper=False, left=False)
    return left, right


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


def _check_type(model: PreTrainedModel) -> None:
    if model.config.model_type in FACTORIZED:
        return
    factorized = model.config.model_type.startswith("retort_lowrank")
    raise BadInput(
        f"a {model.config.model_type} model can't be factorized",
        "It is factorized already: name all targets in one stage."
        if factorized
        else f"There is no factorized type for it yet; there is one for {', '.join(FACTORIZED)}.",
    )


def _outcome(
    model: PreTrainedModel,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    errors: dict[str, dict[str, float]],
) -> Outcome:
    config_class, model_class = FACTORIZED[model.config.model_type]
    prefix = f"{model.base_model_prefix}."
    values = model.config.to_dict()
    for name in ("model_type", "architectures", "transformers_version"):
        values.pop(name, None)
    ranks = {name.removeprefix(prefix): left.shape[1] for name, (left, _) in factors.items()}
    made = model_class(config_class(**values, ranks=ranks))
    nn.Module.to(made, model.device, model.dtype)
    made.load_state_dict(_factorized_state(model, factors))
    made.tie_weights()
    made.generation_config = model.generation_config
    details: dict[str, Any] = {"linears": errors, "damping": DAMPING}
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
