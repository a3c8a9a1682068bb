"""Where training's benchmarks compute: on the GPU where there is one."""

import time
from collections.abc import Callable

import torch

from trainer.device import training_device

PLACE = training_device()
ON_GPU = PLACE.type == "cuda"
MIB = 2**20


def timed(act: Callable[[], object]) -> float:
    """Seconds until all that was asked of the device is done. On a CPU with one thread they are
    processor time: the wall time of a machine that does nothing else, on any other too."""
    clock = time.perf_counter if ON_GPU or torch.get_num_threads() > 1 else time.process_time
    _wait()
    begun = clock()
    act()
    _wait()
    return clock() - begun


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
