"""Disk and memory of a training: looked at before, and named where they run out."""

import errno
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from trainer.errors import BadInput
from trainer.spec import Optimization


def check_disk(out: Path, model: PreTrainedModel, optimization: Optimization) -> None:
    """BadInput where the checkpoints won't fit."""
    out.mkdir(parents=True, exist_ok=True)
    need = _checkpoint_bytes(model) * (optimization.keep_checkpoints + 1)
    free = shutil.disk_usage(out).free
    if free < need:
        raise BadInput(
            f"{out} has too little disk space to train",
            f"{need / 1e6:.0f} MB are needed for {optimization.keep_checkpoints} checkpoints and "
            f"one in the making; {free / 1e6:.0f} MB are free. Free some, or keep fewer.",
        )


def disk_full(error: Exception, out: Path, model: PreTrainedModel) -> BadInput | None:
    """torch reports a full disk as some RuntimeError, so space is looked at too."""
    free = shutil.disk_usage(out).free
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and free >= _checkpoint_bytes(model):
        return None
    return BadInput(
        f"the disk of {out} is full",
        f"{free / 1e6:.0f} MB are free, a checkpoint needs {_checkpoint_bytes(model) / 1e6:.0f}. "
        "Free some and submit again: training goes on from the last complete checkpoint.",
    )


def out_of_memory(error: Exception) -> BadInput | None:
    """A CPU's allocator has no exception of its own."""
    told = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if not told:
        return None
    return BadInput(
        "training ran out of memory",
        f"{str(error).splitlines()[0][:200]}. Lower optimization.batch_size (and raise "
        "accumulation by as much), set gradient_checkpointing, lower max_length, or train a lora.",
    )


def _checkpoint_bytes(model: PreTrainedModel) -> int:
    """fp32 weights and AdamW's two moments."""
    return 12 * sum(parameter.numel() for parameter in model.parameters())
