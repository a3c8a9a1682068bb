"""Disk and memory of a training: looked at before, and named where they run out."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from trainer import checkpoint
from trainer.errors import BadInput
from trainer.spec import MiniLLM, OnPolicy, Optimization, ServedKL, TrainSpec, WithTeacher


def make_directory(out: Path) -> None:
    """BadInput where it can't be one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{out} can't be a directory to train in", str(error)) from error


def check_disk(out: Path, model: PreTrainedModel, optimization: Optimization, digest: str) -> None:
    """BadInput where the checkpoints won't fit, or nothing can be written. Those of this run that
    are there already make room for others; what a process that died left half written is deleted
    first."""
    make_directory(out)
    places = out / "checkpoints"
    shutil.rmtree(places / checkpoint.WRITING, ignore_errors=True)
    there = sum(checkpoint.owner(path) == digest for path in checkpoint.listing(places))
    wanted = optimization.keep_checkpoints + 1
    need = _checkpoint_bytes(model) * max(1, wanted - there)
    free = shutil.disk_usage(out).free
    if free < need:
        held = f", {there} of which are there" if there else ""
        raise BadInput(
            f"{out} has too little disk space to train",
            f"{need / 1e6:.0f} MB are needed for {optimization.keep_checkpoints} checkpoints and "
            f"one in the making{held}; {free / 1e6:.0f} MB are free. Free some, or keep fewer.",
        )


def disk_full(error: Exception, out: Path, model: PreTrainedModel) -> BadInput | None:
    """torch reports a full disk as some RuntimeError, safetensors in words: so space is looked at
    too."""
    free = shutil.disk_usage(out).free
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or os.strerror(errno.ENOSPC) in str(error)
    if not full and free >= _checkpoint_bytes(model):
        return None
    return BadInput(
        f"the disk of {out} is full",
        f"{free / 1e6:.0f} MB are free, a checkpoint needs {_checkpoint_bytes(model) / 1e6:.0f}. "
        "Free some and submit again: training goes on from the last complete checkpoint.",
    )


@contextlib.contextmanager
def disk_named(out: Path, model: PreTrainedModel) -> Iterator[None]:
    """Within, BadInput in the place of whatever a full disk raises."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = disk_full(error, out, model)
        if full is None:
            raise
        raise full from error


@contextlib.contextmanager
def memory_named(spec: TrainSpec) -> Iterator[None]:
    """Within, BadInput in the place of running out of memory: it says what to lower."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
        raise BadInput(
            "training ran out of memory",
            f"{(str(error).splitlines() or ['MemoryError'])[0][:200]}. {what_to_lower(spec)}.",
        ) from error


def _is_memory(error: Exception) -> bool:
    """A CPU's allocator has no exception of its own."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)


def what_to_lower(spec: TrainSpec) -> str:
    """What this training still has to give, the cheapest first."""
    given, advice = spec.optimization, []
    if given.batch_size > 1:
        advice.append(
            f"lower optimization.batch_size ({given.batch_size}) and raise accumulation by as much"
        )
    if not given.gradient_checkpointing:
        advice.append("set optimization.gradient_checkpointing")
    if isinstance(spec, OnPolicy | MiniLLM | ServedKL):
        advice.append(f"lower max_new_tokens ({spec.max_new_tokens}) or samples ({spec.samples})")
    advice.append(f"lower optimization.max_length ({given.max_length}): longer rows are left out")
    if isinstance(spec, WithTeacher):
        if spec.teacher_load.bits is None:
            advice.append("set teacher_load.bits to 8 or 4")
        advice.append("record a signal and use stored_kl, with no teacher in memory")
    if spec.lora is None and spec.quantize is None and spec.initial == "saved":
        advice.append("train a lora")
    return f"{'; '.join(advice)}".capitalize()


def _checkpoint_bytes(model: PreTrainedModel) -> int:
    """fp32 weights and AdamW's two moments."""
    return 12 * sum(parameter.numel() for parameter in model.parameters())
