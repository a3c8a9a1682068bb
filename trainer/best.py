"""The best weights of a run so far, kept beside its checkpoints and checked as they are.

Each is a directory by its step: a checkpoint that a run goes on from names its own, which is still
there when a later one was being written as the process died.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from trainer import checkpoint

WEIGHTS = "weights.pt"


def save_best(directory: Path, step: int, weights: dict[str, Tensor], digest: str) -> None:
    """Whole, or not at all."""
    written = directory / checkpoint.WRITING / _name(step)
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    torch.save(weights, written / WEIGHTS)
    checkpoint.seal(written, directory / _name(step), digest)


def load_best(directory: Path, step: int, digest: str) -> dict[str, Tensor] | str:
    """The weights of a step on the CPU, or why they can't be had. Loaded to where they were saved,
    a second copy of all of them would stand beside the optimizer."""
    problem = checkpoint.problem(directory / _name(step), digest)
    if problem is not None:
        return problem
    path = directory / _name(step) / WEIGHTS
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return stored


def thin_best(directory: Path, step: int | None, digest: str) -> None:
    """Delete all of the run `digest` names but those of a step."""
    for path in directory.glob("best-*"):
        if (step is None or path.name != _name(step)) and checkpoint.owner(path) == digest:
            shutil.rmtree(path)


def _name(step: int) -> str:
    return f"best-{step}"
