"""How big a model directory is, from its safetensors files alone."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainer.compress.report import Shape
from trainer.compress.rounding import spread
from trainer.errors import BadInput
from trainer.loading import read_config

QUANTIZATION = ("_scale", "_zero_point", "_shape", "_g_idx")
"""Endings of tensors that say how weights are packed; they take bytes, but are no parameters."""

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
"""What PyTorch doesn't count on a CPU."""
BITS = {"I8": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "I32": 32, "I64": 64, "U8": 8}
BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "BOOL": 8, "I16": 16}


def measure_shape(model_dir: Path) -> Shape:
    """Parameters, those not zero, bytes on disk and layers."""
    files, config = _files(model_dir), read_config(model_dir)
    parameters = nonzero = 0
    for path in files:
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # not a dict
                if name.endswith(QUANTIZATION):
                    continue
                tensor = _numbers(stored, name, config)
                parameters += tensor.numel()
                nonzero += int(tensor.count_nonzero())
    layers = int(config.get("num_hidden_layers") or config["text_config"]["num_hidden_layers"])
    size = sum(path.stat().st_size for path in files)
    return Shape(parameters=parameters, nonzero=nonzero, weight_bytes=size, layers=layers)


def count_parameters(model: nn.Module) -> int:
    """Numbers in a loaded model's tensors, a tied one once; quantized ones count as numbers, their
    scales don't."""
    named = model.named_parameters()
    return sum(each.numel() for name, each in named if not name.endswith(QUANTIZATION))


def tensor_bytes(model_dir: Path) -> dict[str, int]:
    """Bytes of each stored tensor: its numbers times their bits over 8, headers left out."""
    sizes = {}
    for path in _files(model_dir):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                count = torch.Size(entry["shape"]).numel()
                sizes[name] = count * BITS[entry["dtype"]] // 8
    return sizes


def _numbers(stored: Any, name: str, config: dict[str, Any]) -> Tensor:
    """A stored tensor's numbers, codes of packed ones in the place of integers that hold several;
    less their zero points, so that what stands for 0 is 0."""
    tensor: Tensor = stored.get_tensor(name)
    if tensor.dtype in FLOAT8:
        return tensor.float()
    if not name.endswith("weight_packed"):
        return tensor
    # where such a model can be loaded at all, this is installed
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    prefix = name.removesuffix("packed")
    bits = config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"]
    m, n = stored.get_tensor(f"{prefix}shape").tolist()
    codes: Tensor = unpack_from_int32(tensor, bits, torch.Size((m, n)))
    if f"{prefix}zero_point" not in stored.keys():  # noqa: SIM118
        return codes
    zero = stored.get_tensor(f"{prefix}zero_point")
    shape = torch.Size((m, zero.shape[1]))
    return codes - spread(unpack_from_int32(zero, bits, shape, packed_dim=0), n)


def _files(model_dir: Path) -> list[Path]:
    files = sorted(model_dir.glob("*.safetensors"))
    if not files:
        raise BadInput(
            f"{model_dir} holds no safetensors files",
            "Load the model with transformers and save it again with save_pretrained.",
        )
    return files
