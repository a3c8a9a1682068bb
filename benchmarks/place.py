"""Where training's benchmarks compute: on the GPU where there is one."""

import time
from collections.abc import Callable

import torch

from trainer.device import training_device

PLACE = training_device()
ON_GPU = PLACE.type == "cuda"
MIB = 2**20


def timed(act: Callable[[], object]) -> float:
    """Seconds until all that was asked of the device is done."""
    _wait()
    begun = time.perf_counter()
    act()
    _wait()
    return time.perf_counter() - begun


def gpu_mib(act: Callable[[], object]) -> float:
    """MiB of the GPU that a piece of work takes at its peak, beside what was there before."""
    _wait()
    before = torch.cuda.memory_allocated(PLACE)
    torch.cuda.reset_peak_memory_stats(PLACE)
    act()
    return (torch.cuda.max_memory_allocated(PLACE) - before) / MIB


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize(PLACE)
