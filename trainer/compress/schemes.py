"""What each quantization scheme is, for llmcompressor, for training and for the export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.errors import BadInput
from trainer.spec import SchemeName


@dataclass(frozen=True)
class Scheme:
    """Symmetric weights, and activations where they are rounded too."""

    bits: int
    number: Literal["int", "float"]
    grouped: bool
    """A scale for each group of inputs, else one for each output channel."""
    rounds_activations: bool
    """Per token, as they come."""

    @property
    def packed(self) -> bool:
        """Whether a row's codes share 32-bit integers: not where engines multiply them as bytes."""
        return not self.rounds_activations

    def stored_bytes(
        self, m: int, n: int, group_size: int, item_bytes: int, zero_points: bool
    ) -> int:
        """What a matrix of m outputs and n inputs takes: its codes, and a scale (and a zero point
        of as many bits as a code) of each output or group. Packed rows end with an integer that
        may be partly empty, as columns of zero points do; two more tell the shape."""
        groups = n // group_size if self.grouped else 1
        scales = m * groups * item_bytes
        if not self.packed:
            return m * n * self.bits // 8 + scales
        zeros = groups * _words(m, self.bits) if zero_points else 0
        return m * _words(n, self.bits) + scales + zeros + SHAPE_BYTES


SHAPE_BYTES = 16


def _words(count: int, bits: int) -> int:
    """Bytes of as many 32-bit integers as hold `count` codes."""
    return 4 * -(-count * bits // 32)


SCHEMES: dict[str, Scheme] = {
    "W8A8": Scheme(8, "int", grouped=False, rounds_activations=True),
    "W8A16": Scheme(8, "int", grouped=False, rounds_activations=False),
    "W4A16": Scheme(4, "int", grouped=True, rounds_activations=False),
    "FP8": Scheme(8, "float", grouped=False, rounds_activations=True),
}


def config_group(name: SchemeName, group_size: int, symmetric: bool = True) -> Any:
    """compressed-tensors' description of a scheme, over all linears; with zero points where it
    isn't symmetric."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = SCHEMES[name]
    common = {"num_bits": scheme.bits, "type": scheme.number}
    size = {"strategy": "group", "group_size": group_size} if scheme.grouped else {}
    spread = size or {"strategy": "channel"}
    weights = QuantizationArgs(**common, **spread, symmetric=symmetric)
    activations = QuantizationArgs(**common, strategy="token", dynamic=True, symmetric=True)
    return QuantizationScheme(
        targets=["Linear"],
        weights=weights,
        input_activations=activations if scheme.rounds_activations else None,
    )


def targets_of(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear of the decoder layers by its full name: what is quantized."""
    layout = find_layers(model)
    return {
        f"{layout.name}.{index}.{name}": linear
        for index, layer in enumerate(layout.layers)
        for name, linear in find_linears(layer).items()
    }


def others(model: PreTrainedModel) -> list[str]:
    """Linears outside of the layers, which stay as they are: the head is tied more often than
    not."""
    quantized = {id(linear) for linear in targets_of(model).values()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in quantized
    ]


def check_groups(linears: dict[str, nn.Linear], name: SchemeName, group_size: int) -> None:
    """Refuse a group size that doesn't divide, with the linear that it doesn't fit."""
    if not SCHEMES[name].grouped:
        return
    for full, linear in linears.items():
        if linear.in_features % group_size:
            raise BadInput(
                f"group_size {group_size} doesn't divide the {linear.in_features} inputs of {full}",
                f"Use one that divides all of {sorted(_widths(list(linears.values())))}.",
            )


def check_rank(linears: dict[str, nn.Linear], rank: int) -> None:
    """Refuse adapters that are no smaller than what they adapt."""
    for full, linear in linears.items():
        least = min(linear.in_features, linear.out_features)
        if rank >= least:
            raise BadInput(
                f"rank {rank} is no less than the {least} of {full}",
                "Its adapters would have more numbers than it has itself. Take a smaller rank.",
            )


def _widths(linears: Sequence[nn.Linear]) -> set[int]:
    return {linear.in_features for linear in linears}
