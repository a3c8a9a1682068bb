"""Training on rounded weights: the primitive, the modules, and what puts them in and exports them.

Quantization-aware training (QAT) rounds in every forward pass and lets gradients through as if it
hadn't: the weights learn where the grid leaves them well. PEQA (arXiv:2305.14152) rounds once and
then trains the scales alone. m outputs, n inputs, g group size.
"""

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.compress.rounding import round_activations, round_weight, weight_scale
from trainer.compress.schemes import (
    SCHEMES,
    Scheme,
    check_groups,
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
    train: Literal["weights", "scales"] = "weights"
    """QAT trains weights through their rounding, PEQA the scales of weights rounded once."""


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass; its gradient goes to x as it is (arXiv:1308.3432)."""
    return x + (rounded - x).detach()


class FakeQuantLinear(nn.Linear):
    """A linear whose weights (and inputs, where the scheme says so) are rounded as it computes.

    Parameters keep the names of the linear's, so that a checkpoint holds the unrounded weights.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme, group_size: int) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scheme, self.group_size = scheme, group_size

    def scale(self) -> Tensor:
        """[m, n / g] or [m, 1]"""
        return weight_scale(self.weight.detach(), self.scheme, self.group_size)

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        rounded = round_weight(self.weight, self.scale(), self.scheme, self.group_size)
        weight = straight_through(self.weight, rounded)
        return F.linear(_given(input, self.scheme), weight, self.bias)


class ScaledLinear(nn.Module):
    """A linear of fixed codes and trained scales: weight = codes * scale."""

    def __init__(self, linear: nn.Linear, scheme: Scheme, group_size: int) -> None:
        super().__init__()
        weight = linear.weight.detach()
        first = weight_scale(weight, scheme, group_size)
        self.scheme, self.group_size = scheme, group_size
        spread = first.repeat_interleave(weight.shape[1] // first.shape[1], dim=1)
        codes = round_weight(weight, first, scheme, group_size) / spread
        self.codes = nn.Buffer(codes if scheme.number == "float" else codes.round())
        self.log_scale = nn.Parameter(first.log())
        self.bias = linear.bias

    def scale(self) -> Tensor:
        """[m, n / g] or [m, 1]; trained as a logarithm, since it must stay positive."""
        return self.log_scale.exp()

    def weight(self) -> Tensor:
        """[m, n]"""
        scale = self.scale()
        return self.codes * scale.repeat_interleave(self.codes.shape[1] // scale.shape[1], dim=1)

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        return F.linear(_given(input, self.scheme), self.weight(), self.bias)


def prepare(model: PreTrainedModel, quantized: Quantized) -> None:
    """Put rounding linears in the place of the decoder layers' own, before an optimizer is made.

    PEQA freezes everything but the scales. Raises BadInput where a group size doesn't divide, and
    where nothing could write the result.
    """
    check_export()
    linears = targets_of(model)
    check_groups(linears, quantized.scheme, quantized.group_size)
    scheme = SCHEMES[quantized.scheme]
    if quantized.train == "scales":
        model.requires_grad_(False)
    kind = {"weights": FakeQuantLinear, "scales": ScaledLinear}[quantized.train]
    for name, linear in linears.items():
        _put(model, name, kind(linear, scheme, quantized.group_size))


def export(
    model: PreTrainedModel,
    quantized: Quantized,
    directory: Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write what was trained in compressed-tensors' format: the same scheme, codes and scales.

    `dtype` is what all but the packed weights are stored in. The model is left as it is. The
    tokenizer isn't written.
    """
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    plain = copy.deepcopy(model)
    scales = restore(plain)
    group = config_group(quantized.scheme, quantized.group_size)
    config = QuantizationConfig(config_groups={"group_0": group}, ignore=others(plain))
    apply_quantization_config(plain, config, show_progress=False)
    for name, scale in scales.items():
        stored = dict(plain.get_submodule(name).named_parameters())["weight_scale"]
        stored.data = scale.to(stored)
    compressor = ModelCompressor.from_pretrained_model(plain)
    compressor.compress_model(plain)
    for parameter in plain.parameters():  # only now: codes come from weights as they were trained
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(dtype)
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


def restore(model: PreTrainedModel) -> dict[str, Tensor]:
    """Put ordinary linears back, in place; the scales of each that was rounded, by name."""
    scales = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, FakeQuantLinear | ScaledLinear):
            weight = module.weight() if isinstance(module, ScaledLinear) else module.weight
            scales[name] = module.scale().detach()
            linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
            linear.bias = module.bias
            _put(model, name, linear)
    return scales


def _given(x: Tensor, scheme: Scheme) -> Tensor:
    if not scheme.rounds_activations:
        return x
    return straight_through(x, round_activations(x.detach(), scheme))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    model.get_submodule(parent).add_module(leaf, module)
