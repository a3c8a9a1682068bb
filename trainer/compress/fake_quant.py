"""Training on rounded weights: what puts the rounding linears in, and what exports them.

Quantization-aware training (QAT) rounds in every forward pass and lets gradients through as if it
hadn't: the weights learn where the grid leaves them well. Quantization-aware fine-tuning (QAF)
rounds once and trains a small part: PEQA the scales, QLoRA and QA-LoRA adapters.
"""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.adapted_linears import AdaptedLinear, PooledLinear
from trainer.compress.quantized_linears import (
    FakeQuantLinear,
    Packed,
    QuantizedLinear,
    ScaledLinear,
    given,
    plain_linear,
)
from trainer.compress.rounding import round_weight
from trainer.compress.schemes import (
    SCHEMES,
    check_groups,
    check_rank,
    config_group,
    others,
    targets_of,
)
from trainer.errors import BadInput
from trainer.spec import SchemeName


@dataclass(frozen=True)
class Quantized:
    """How a model is quantized while it is trained, and exported."""

    scheme: SchemeName
    group_size: int = 128
    train: Literal["weights", "scales", "adapters", "pooled_adapters"] = "weights"
    """QAT trains weights through their rounding, PEQA the scales of weights rounded once, QLoRA
    and QA-LoRA adapters beside them."""
    rank: int = 16
    """Of adapters."""
    alpha: int = 32
    """Adapters are scaled by alpha / rank."""
    loftq_rounds: int = 0
    """Of QLoRA's start; 0 starts adapters without effect."""
    stored: torch.dtype = torch.float32
    """What all but packed weights is stored in: scales are trained as they will be."""


KINDS: dict[str, Callable[[nn.Linear, Quantized], nn.Module]] = {
    "weights": lambda linear, q: FakeQuantLinear(linear, SCHEMES[q.scheme], q.group_size, q.stored),
    "scales": lambda linear, q: ScaledLinear(linear, SCHEMES[q.scheme], q.group_size, q.stored),
    "adapters": lambda linear, q: AdaptedLinear(
        linear, SCHEMES[q.scheme], q.group_size, q.rank, q.alpha, q.loftq_rounds, q.stored
    ),
    "pooled_adapters": lambda linear, q: PooledLinear(
        linear, q.group_size, q.rank, q.alpha, q.stored
    ),
}
"""By what is trained, the module that takes a linear's place."""
ROUNDED = FakeQuantLinear | ScaledLinear | AdaptedLinear | PooledLinear


def prepare(model: PreTrainedModel, quantized: Quantized) -> None:
    """Put rounding linears in the place of the decoder layers' own, before an optimizer is made.

    All but QAT freezes everything that was there. Raises BadInput where a group size doesn't
    divide, adapters are no smaller than what they adapt, or nothing could write the result.
    """
    check_export()
    linears = targets_of(model)
    check_groups(linears, quantized.scheme, quantized.group_size)
    if quantized.train in ("adapters", "pooled_adapters"):
        check_rank(linears, quantized.rank)
    if quantized.train != "weights":
        model.requires_grad_(False)
    for name, linear in linears.items():
        _put(model, name, KINDS[quantized.train](linear, quantized))


@torch.no_grad()
def settle(model: PreTrainedModel, stored: torch.dtype) -> None:
    """Round what isn't quantized (embeddings, norms, biases) to the dtype that it's stored in, in
    place: what training ends with, as any training saved in that dtype does."""
    trained = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, ROUNDED)
        for parameter in module.parameters()
        if parameter is not module.bias
    }
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.copy_(parameter.to(stored))


def export(model: PreTrainedModel, quantized: Quantized, directory: Path) -> None:
    """Write what was trained in compressed-tensors' format: the same scheme, codes and scales.

    A model that was settled is stored exactly; it is left as it is. The tokenizer isn't written.
    """
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    plain = copy.deepcopy(model)
    packed = restore(plain)
    symmetric = quantized.train != "pooled_adapters"
    group = config_group(quantized.scheme, quantized.group_size, symmetric)
    config = QuantizationConfig(config_groups={"group_0": group}, ignore=others(plain))
    apply_quantization_config(plain, config, show_progress=False)
    for name, one in packed.items():
        stored = dict(plain.get_submodule(name).named_parameters())
        stored["weight_scale"].data = one.scale.to(stored["weight_scale"])
        if one.zero is not None:
            stored["weight_zero_point"].data = one.zero.to(stored["weight_zero_point"])
    compressor = ModelCompressor.from_pretrained_model(plain)
    compressor.compress_model(plain)
    for parameter in plain.parameters():  # only now: codes come from weights as they were trained
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(quantized.stored)
    plain.config.use_cache = True
    plain.save_pretrained(directory)
    compressor.update_config(str(directory))


def check_export() -> None:
    """BadInput where what is trained couldn't be saved."""
    if importlib.util.find_spec("compressed_tensors") is None:
        raise BadInput(
            "quantized training needs compressed-tensors to save its result",
            "Install the extra: pip install 'retort-distill[quantize]'.",
        )


def restore(model: PreTrainedModel) -> dict[str, Packed]:
    """Put ordinary linears back, in place; what is stored of each that was rounded, by name."""
    found = {}
    for name, module in rounded_linears(model).items():
        found[name] = module.packed()
        _put(model, name, plain_linear(module))
    return found


def rounded_linears(model: PreTrainedModel) -> dict[str, QuantizedLinear]:
    """The modules that `prepare` put in, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ROUNDED)}


def merge_error(module: QuantizedLinear, quantized: Quantized) -> float:
    """|W - Q|_F / |W|_F of what a linear computes with and what is stored of it: 0 for QAT and
    PEQA, what rounding a merge again (or its zero points) loses for QLoRA (or QA-LoRA)."""
    merged = module.merged()
    return float((merged - _stored(module, quantized)).norm() / merged.norm())


def as_saved(model: PreTrainedModel, quantized: Quantized) -> PreTrainedModel:
    """A copy that computes with what is stored of each linear: adapters merged and rounded."""
    made, scheme = copy.deepcopy(model), SCHEMES[quantized.scheme]
    for name, module in rounded_linears(made).items():
        linear = plain_linear(module)
        linear.weight.data = _stored(module, quantized)
        linear.register_forward_pre_hook(lambda _, inputs: (given(inputs[0], scheme),))
        _put(made, name, linear)
    return made


def _stored(module: QuantizedLinear, quantized: Quantized) -> Tensor:
    """[m, n]"""
    packed = module.packed()
    if packed.zero is not None:
        return packed.weight
    scheme = SCHEMES[quantized.scheme]
    return round_weight(packed.weight, packed.scale, scheme, quantized.group_size)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).add_module(leaf, module)
