"""The most memory that a piece of work held."""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch
from torch import nn

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def keep_imports() -> None:
    """Leave what stands by now out of later collections: with torch and transformers half a million
    objects, that live as long as the process. `restart_peak` collects, and looked through them
    each time. For a process' beginning, before models are there."""
    gc.collect()
    gc.freeze()


def restart_peak(device: torch.device) -> int:
    """Forget the peak so far, where the system can; where it can't, the process' own counts. Bytes
    held now: what was freed before is given back first, or the work to come would hide in it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps it otherwise
    with contextlib.suppress(OSError):
        RESET.write_text("5")
    return _resident("VmRSS:")


def peak_bytes(device: torch.device) -> int:
    """Most bytes held since `restart_peak`: of the GPU that the model is on, else resident ones of
    this process, the libraries' own included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _resident("VmHWM:")


def model_peak(model: nn.Module, held: int, device: torch.device) -> int:
    """A model's tensors, and the most that its work took on top since `restart_peak` said `held`:
    nothing of the libraries, nor of whatever else the process keeps."""
    return tensor_bytes(model) + max(0, peak_bytes(device) - held)


def tensor_bytes(model: nn.Module) -> int:
    """Of its parameters and buffers as they are held, a shared one once."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _resident(field: str) -> int:
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
