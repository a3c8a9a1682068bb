"""The most memory that a piece of work held."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def restart_peak(device: torch.device) -> None:
    """Forget the peak so far, where the system can; where it can't, the process' own counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        RESET.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Most bytes held since `restart_peak`: of the GPU that the model is on, else resident ones of
    this process, the libraries' own included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
