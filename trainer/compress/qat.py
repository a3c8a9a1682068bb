"""Quantization-aware training as a stage: a distillation run on rounded weights.

The student computes with its rounded weights in every step of the one training loop, whatever
its loss; what is exported is exactly the grid that it was trained on.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from trainer.compress.fake_quant import Quantized, export, prepare, settle
from trainer.compress.heal import keep_zeros, train_spec, with_threads
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow, read_records
from trainer.events import Emit
from trainer.loading import stored_dtype
from trainer.preparation import Prepared, make_objective
from trainer.preparation import prepare as prepare_training
from trainer.space import check_disk, disk_named, memory_named
from trainer.spec import Heal, QuantizeTrain
from trainer.student import Student
from trainer.training import fit

VERSION = 2
"""Part of every digest: a change of what training linears hold makes old checkpoints strange."""
WHAT = "QAT: weights were trained through their rounding"


@dataclass(frozen=True)
class Workplace:
    """Where a stage that trains finds what it needs."""

    source: Path
    """The model that is trained."""
    start: Path
    """The one that it is trained towards."""
    dataset: Path
    directory: Path
    """Gets checkpoints, from which a stopped run goes on."""
    threads: int | None
    emit: Emit


@dataclass(frozen=True)
class Trained:
    """A model in training linears, and what the run says of itself."""

    model: PreTrainedModel
    held: tuple[TokenRow, ...]
    """Rows that it wasn't trained on; of those that it was, where there are none."""
    details: dict[str, Any]


def run(stage: QuantizeTrain, place: Workplace) -> Outcome:
    """Train weights through their rounding. The outcome saves itself in compressed-tensors'
    format, in the source's dtype but for the packed weights."""
    stored = stored_dtype(place.source)
    quantized = Quantized(stage.scheme, stage.group_size, stored=stored)
    # weights that a mask took out must be held
    made = train_rounded(stage.training, quantized, place, keep_zeros(place.source))
    return outcome(made, quantized, WHAT)


def train_rounded(
    training: Heal,
    quantized: Quantized,
    place: Workplace,
    after_step: Callable[[nn.Module], None] | None = None,
) -> Trained:
    """One distillation run in the rounding linears that `quantized` names."""
    spec = train_spec(
        with_threads(training, place.threads), place.source, place.start, place.dataset
    )
    records, held = (read_records(place.dataset, split) for split in ("train", "validation"))
    prepared = _of_this_grid(prepare_training(spec, records, held, place.emit), quantized)
    check_disk(place.directory, prepared.model, spec.optimization, prepared.digest)
    full = disk_named(place.directory, prepared.model)
    with memory_named(spec), full, ExitStack() as closing:
        objective = make_objective(prepared, place.emit, closing)
        torch.manual_seed(spec.optimization.seed)  # adapters start at random
        prepare(prepared.model, quantized)
        student = Student(prepared.model, objective, spec.optimization.precision)
        trainer = fit(prepared, student, place.directory / "checkpoints", place.emit, after_step)
    settle(prepared.model, quantized.stored)
    losses = [loss for _, loss in trainer.history.losses]
    details = {
        "scheme": quantized.scheme,
        "trained": quantized.train,
        "method": spec.method,
        "parameters_trained": sum(p.numel() for p in student.parameters() if p.requires_grad),
        "steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "format": "compressed-tensors",
    }
    return Trained(prepared.model.eval(), prepared.validation.rows or prepared.rows.rows, details)


def _of_this_grid(prepared: Prepared, quantized: Quantized) -> Prepared:
    """Known by its grid too: another one's checkpoint would load, and mean something else."""
    digest = hashlib.sha256(f"{prepared.digest} {VERSION} {quantized}".encode()).hexdigest()
    return replace(prepared, digest=digest)


def outcome(made: Trained, quantized: Quantized, *notes: str) -> Outcome:
    """What the stage hands back: the model writes itself packed."""
    return Outcome(
        made.model, made.details, notes, lambda path: export(made.model, quantized, path)
    )
