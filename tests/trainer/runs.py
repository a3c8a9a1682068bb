"""Brief trainings: what they are asked, hear and leave, and how they die."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prompts.record import Record
from tests.trainer.conftest import make_records
from trainer.events import silent
from trainer.spec import Optimization, SequenceLevel, TrainSpec
from trainer.training import train_on

BRIEF = Optimization(
    batch_size=4, epochs=2, learning_rate=1e-2, checkpoint_steps=3, threads=1, max_length=64
)
"""8 steps over 16 rows."""


class Heard(list[tuple[str, dict[str, Any]]]):
    """Events as they came."""

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self if name == event]


def sequence_level(student: Path, **changes: Any) -> TrainSpec:
    optimization = BRIEF.model_copy(update=changes)
    return SequenceLevel(method="sequence_level", student=str(student), optimization=optimization)


def run(
    spec: TrainSpec,
    out: Path,
    emit: Callable[[str, dict[str, Any]], None] = silent,
    records: list[Record] | None = None,
) -> dict[str, Tensor]:
    given = make_records(16) if records is None else records
    return weights(train_on(spec, given, make_records(4), out, emit))


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


class Killed(RuntimeError):  # noqa: N818
    """Stands for a death that nothing could catch."""


def dying_after(checkpoint: int) -> Callable[[str, dict[str, Any]], None]:
    """An emit that dies once checkpoint number `checkpoint` has been announced."""
    seen = 0

    def emit(event: str, fields: dict[str, Any]) -> None:
        nonlocal seen
        if event == "phase" and fields["name"] == "checkpoint":
            seen += 1
            if seen == checkpoint:
                raise Killed

    return emit
