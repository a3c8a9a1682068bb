"""A model that does not exist yet: how big it will be, and which engine will load it."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.compress.anatomy import Anatomy
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.schemes import SCHEMES

HEAD_SIZES = "32, 64, 80, 96, 112, 128 and larger multiples of 32"
"""What vLLM's attention takes on a CPU."""


@dataclass(frozen=True)
class Linear:
    """One linear of a layer: m outputs, n inputs."""

    m: int
    n: int
    bias: bool
    rank: int | None = None

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of what is stored: the matrix, or its two factors."""
        if self.rank is None:
            return ((self.m, self.n),)
        return ((self.rank, self.n), (self.m, self.rank))


@dataclass(frozen=True)
class Expected:
    """A model that does not exist yet."""

    model_type: str
    layers: int
    linears: dict[str, Linear]
    """Of each layer, by name."""
    other_per_layer: int
    """Parameters of a layer outside of its linears."""
    outside: int
    """Parameters outside of the layers."""
    item_bytes: int
    anatomy: Anatomy | None = None
    """With sizes as they will be; None where only the layers and their linears are known."""
    sparse: bool = False
    scheme: str | None = None
    group_size: int = 128
    zero_points: bool = False
    """Whether each group has one, of as many bits as a weight."""
    unknown: bool = False
    """Whether the data decide the size."""

    @property
    def parameters(self) -> int:
        """Numbers in the model, packed ones counted as numbers."""
        within = sum(
            sum(m * n for m, n in linear.matrices) + linear.bias * linear.m
            for linear in self.linears.values()
        )
        return self.outside + self.layers * (within + self.other_per_layer)

    @property
    def weight_bytes(self) -> int:
        """On disk, headers left out."""
        plain = self.parameters * self.item_bytes
        return plain - self.layers * sum(self._saved(one) for one in self.linears.values())

    def _saved(self, linear: Linear) -> int:
        if self.scheme is None:
            return 0
        scheme, saved = SCHEMES[self.scheme], 0
        for m, n in linear.matrices:
            scales = m * (n // self.group_size if scheme.grouped else 1)
            saved += m * n * self.item_bytes - m * n * scheme.bits // 8 - scales * self.item_bytes
            saved -= scales * scheme.bits // 8 * self.zero_points
        return saved


def describe(model: PreTrainedModel) -> Expected:
    """The model as it stands."""
    layout = find_layers(model)
    linears = find_linears(layout.layers[0])
    within = sum(p.numel() for p in layout.layers[0].parameters())
    counted = {
        name: Linear(*_shape(linear), linear.bias is not None) for name, linear in linears.items()
    }
    in_linears = sum(p.numel() for linear in linears.values() for p in linear.parameters())
    whole = sum(p.numel() for p in model.parameters())
    all_layers = sum(p.numel() for p in layout.layers.parameters())
    return Expected(
        model_type=model.config.model_type,
        layers=len(layout.layers),
        linears=counted,
        other_per_layer=within - in_linears,
        outside=whole - all_layers,
        item_bytes=torch.empty((), dtype=model.dtype).element_size(),
    )


def engines(expected: Expected) -> tuple[str, ...]:
    """Which engine loads the result, and why not where one doesn't."""
    said = []
    anatomy = expected.anatomy
    if anatomy is not None and expected.model_type == "qwen2":
        square = anatomy.attention.heads * anatomy.attention.head_size == anatomy.hidden
        if not square:
            said.append(
                "transformers loads it; vLLM only with --model-impl transformers: its Qwen2 takes "
                "hidden / heads for the head size"
            )
    ranks = any(linear.rank for linear in expected.linears.values())
    if not said:
        by = " (through retort-lowrank)" if ranks else ""
        said.append(f"transformers and vLLM load it{by}")
    if expected.scheme == "W8A16":
        said.append("vLLM's CPU build has no kernel for 8-bit weights alone")
    if expected.scheme == "W4A16" and expected.item_bytes == 4:
        said.append("vLLM's CPU build serves 4-bit weights in 16-bit models alone: save it in bf16")
    if expected.sparse and expected.scheme is None and not ranks:
        said.append("no engine is faster by its zeros")
    if anatomy is not None and anatomy.attention.head_size < 32:
        said.append(
            f"vLLM on a CPU takes head sizes {HEAD_SIZES}, not {anatomy.attention.head_size}"
        )
    return tuple(said)


def _shape(linear: nn.Linear) -> tuple[int, int]:
    return linear.out_features, linear.in_features
