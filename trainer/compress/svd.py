"""Factorizing as a stage: targets, their ranks, and the model of the factorized type."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from retort_lowrank import FACTORIZED
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.factors import factorize, make_scales, relative_error, singular_values
from trainer.compress.layout import find_layers, pick_linears
from trainer.compress.masks import told_lost
from trainer.compress.moments import Collect, collect
from trainer.compress.outcome import Outcome
from trainer.compress.rank_search import within_loss
from trainer.compress.ranks import (
    Matrix,
    check_step,
    error,
    loss_beside,
    parameters,
    rank_for,
    uniform,
    within_error,
    within_parameters,
)
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import SvdFactorize

HEADER_BYTES = 200
"""What a safetensors file says of each tensor, at most; a budget in bytes leaves room for it."""


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
        scales = make_scales(stage, {name: moments[name] for name in targets[index]})
        for name, linear in targets[index].items():
            full, weight = f"{layout.name}.{index}.{name}", linear.weight.detach().double()
            left, right = factorize(weight, scales[name], ranks[full])
            dampings.append(scales[name].damping)
            factors[full] = (left, right)
            lost = relative_error(weight, left @ right, moments[name].gram)
            errors[full] = {"rank": ranks[full], "relative_error": lost}
    details = {"linears": errors, "largest_damping": max(dampings), **allocation}
    return _outcome(model, factors, details, told_lost(targets))


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
    for name, shape in shapes.items():
        check_step(name, shape, stage.rank_multiple)
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
    even = uniform(matrices, spent)
    return {
        "parameter_ratio": share,
        "loss_beside_uniform": loss_beside(matrices, ranks, even),
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
        scales = make_scales(stage, {name: moments[name] for name in linears})
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
        scales = make_scales(stage, {name: moments[name] for name in linears})
        for name, linear in linears.items():
            values = singular_values(linear.weight.detach().double(), scales[name])
            shape = (linear.out_features, linear.in_features)
            found[f"{layout.name}.{index}.{name}"] = Matrix(shape, values, stage.rank_multiple)
    return found


def _outcome(
    model: PreTrainedModel,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    details: dict[str, Any],
    notes: tuple[str, ...],
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
    made.set_attn_implementation(model.config._attn_implementation)
    made.load_state_dict(_factorized_state(model, factors))
    made.tie_weights()
    made.generation_config = model.generation_config
    made.train(False)
    return Outcome(made, details, notes)


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
