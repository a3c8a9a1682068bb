"""A teacher in less memory: its linear layers in 8 or 4 bits, its layers off the GPU.

m outputs, n inputs, g groups of GROUP inputs.
"""

from typing import Literal

import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.errors import BadInput
from trainer.spec.teacher import TeacherLoad

GROUP = 64
"""Inputs that share a scale in 4 bits."""
DTYPES = {"saved": None, "fp32": torch.float32, "bf16": torch.bfloat16}


class NarrowLinear(nn.Module):
    """A linear that holds its weight as integers and widens it each time that it computes: a
    layer's weight is wide only while the layer works. It gets no gradient of its own."""

    def __init__(self, linear: nn.Linear, bits: Literal[8, 4]) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bits = bits
        codes, scale, lowest = (_narrow_rows if bits == 8 else _narrow_groups)(
            linear.weight.detach()
        )
        self.codes, self.scale, self.lowest = nn.Buffer(codes), nn.Buffer(scale), nn.Buffer(lowest)
        self.bias = linear.bias

    def weight(self) -> Tensor:
        """[m, n] as it computes with it."""
        wide: Tensor
        if self.bits == 8:
            wide = self.codes.to(self.scale.dtype) * self.scale
            return wide
        halves = torch.stack([self.codes & 15, self.codes >> 4], dim=-1).flatten(1)
        grouped = halves.unflatten(1, (-1, GROUP)).to(self.scale.dtype)
        wide = grouped * self.scale[..., None] + self.lowest[..., None]
        return wide.flatten(1)[:, : self.in_features]

    def forward(self, input: Tensor) -> Tensor:
        """[..., n] -> [..., m]"""
        return F.linear(input, self.weight(), self.bias)


def narrow(model: PreTrainedModel, bits: Literal[8, 4]) -> None:
    """Put narrow linears in the place of a model's body's; its embeddings and its head stay."""
    for name, module in list(model.base_model.named_modules()):
        if type(module) is nn.Linear:
            owner, _, attribute = name.rpartition(".")
            setattr(model.base_model.get_submodule(owner), attribute, NarrowLinear(module, bits))


def place(model: PreTrainedModel, load: TeacherLoad, device: torch.device) -> None:
    """On a device, or with its layers waiting beside it. BadInput where that saves nothing."""
    if not load.offload:
        nn.Module.to(model, device)
        return
    if device.type == "cpu":
        raise BadInput(
            "teacher_load.offload: the training runs on a CPU",
            "A teacher is taken off a GPU's memory; here there is none. Leave it out, and lower "
            "teacher_load.bits or dtype where memory is short.",
        )
    offload(model, device)


def offload(model: PreTrainedModel, device: torch.device) -> None:
    """Layers wait on the CPU and visit `device`; embeddings, last norm and head live there: the
    head is used by its weight, not as a module."""
    layers = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    if not layers:
        raise BadInput(
            f"teacher_load.offload: {type(model).__name__} doesn't say what its layers are",
            "Leave it out, or use teacher_load.bits.",
        )
    held = {id(tensor) for layer in layers for tensor in (*layer.parameters(), *layer.buffers())}
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if id(tensor) not in held:
                tensor.data = tensor.data.to(device)
    for layer in layers:
        cpu_offload(layer, execution_device=device, offload_buffers=True)


def _narrow_rows(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[m, n] -> int8 [m, n], scale [m, 1]: the largest of a row becomes 127."""
    scale = _positive(weight.abs().amax(dim=1, keepdim=True) / 127)
    codes = (weight.float() / scale.float()).round().clamp(-127, 127)
    return codes.to(torch.int8), scale, weight.new_zeros(0)


def _narrow_groups(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[m, n] -> two codes a byte [m, g GROUP / 2], scale and lowest value [m, g]; the last group is
    filled up with its last input."""
    missing = -weight.shape[1] % GROUP
    padded = torch.cat([weight, weight[:, -1:].expand(-1, missing)], dim=1)
    groups = padded.unflatten(1, (-1, GROUP))
    lowest, highest = groups.amin(dim=-1), groups.amax(dim=-1)
    scale = _positive((highest - lowest) / 15)
    above = groups.float() - lowest.float()[..., None]
    codes = (above / scale.float()[..., None]).round().clamp(0, 15)
    pairs = codes.to(torch.uint8).flatten(1).unflatten(1, (-1, 2))
    return pairs[..., 0] | (pairs[..., 1] << 4), scale, lowest


def _positive(scale: Tensor) -> Tensor:
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)
