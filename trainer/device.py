"""Where models compute."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import torch
from torch import nn


def training_device() -> torch.device:
    """This process's GPU, or the CPU where there is none. transformers.Trainer takes the same."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextlib.contextmanager
def at_work(*modules: nn.Module) -> Iterator[None]:
    """Within, modules are on the device that trainings compute on, and behind it where they were:
    the next model, or a vLLM, has a GPU for itself then."""
    device, before = training_device(), [place_of(module) for module in modules]
    try:
        for module in modules:
            _move(module, device)
        yield
    finally:
        for module, place in zip(modules, before, strict=True):
            _move(module, place)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what is kept for reuse no other process gets


def place_of(module: nn.Module) -> torch.device:
    """Of its first weight; the CPU where it has none."""
    weights = itertools.chain(module.parameters(), module.buffers())
    return next((one.device for one in weights), torch.device("cpu"))


def _move(module: nn.Module, device: torch.device) -> None:
    # Weights that are moved in inference mode could never be trained again.
    with torch.inference_mode(False):
        module.to(device)
