"""A training looked at before it is paid for: what is learnt, how long, how much memory."""

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torch import nn

from trainer.data import TokenRows, read_records, show_row
from trainer.errors import BadInput
from trainer.estimate import memory
from trainer.events import Emit, silent
from trainer.methods import find_served
from trainer.preparation import Prepared, make_objective, prepare
from trainer.space import memory_named
from trainer.spec import ServedKL, TrainSpec
from trainer.student import Student
from trainer.training import fit

MEASURED_STEPS = 3


def dry_run(spec: TrainSpec, emit: Emit) -> str:
    """Rows as they would be trained, the plan, memory, and the time by a few measured steps;
    everything that could be refused is. The steps' weights are thrown away."""
    if spec.dataset is None:
        raise BadInput("no dataset to train on", "Name one in `dataset`.")
    dataset = Path(spec.dataset)
    records, held = read_records(dataset, "train"), read_records(dataset, "validation")
    if isinstance(spec, ServedKL):
        find_served(spec)
    with memory_named(spec):
        run = prepare(spec, records, held, emit)
        plan = describe(run)
        seconds = measured(run, emit)
    total = seconds * run.plan.steps
    return (
        f"{show_row(run.rows.rows[0], run.tokenizer)}\n--- plan ---\n{plan}\n"
        f"{seconds:.3f} s a step by {MEASURED_STEPS - 1} measured steps, about {total:.0f} s for "
        "all, validation and checkpoints not counted"
    )


def describe(run: Prepared) -> str:
    """Rows, lengths, steps and memory."""
    lengths = sorted(len(row.ids) for row in run.rows.rows)
    needed = memory(run.spec, run.rows, run.plan)
    middle = lengths[len(lengths) // 2]
    lines = [
        f"{len(lengths)} rows of {lengths[0]} to {lengths[-1]} tokens (median {middle}), "
        f"{run.rows.left_out(run.max_length)}",
        f"{run.rows.completion_tokens} tokens learnt an epoch; vocabulary {len(run.tokenizer)}, "
        f"head {run.model.get_output_embeddings().weight.shape[0]}",
        f"{run.plan.steps} steps, {run.plan.warmup_steps} of them warm-up, "
        f"{run.plan.epochs:.2f} epochs",
        *(f"{name}: {size / 1e6:.1f} MB" for name, size in needed.items()),
    ]
    return "\n".join(lines)


def measured(run: Prepared, emit: Emit) -> float:
    """Seconds of a step, the first left out: it warms up."""
    spec = run.spec.model_copy(
        update={
            "optimization": run.spec.optimization.model_copy(
                update={"keep": "last", "report_to": ()}
            )
        }
    )
    few = replace(
        run, spec=spec, plan=replace(run.plan, steps=MEASURED_STEPS), validation=TokenRows((), 0, 0)
    )
    stamps: list[float] = []

    def stamp(model: nn.Module) -> None:
        stamps.append(time.monotonic())

    with ExitStack() as closing, tempfile.TemporaryDirectory() as place:
        objective = make_objective(run, emit, closing)
        student = Student(run.model, objective, run.spec.optimization.precision)
        fit(few, student, Path(place), silent, stamp, saves=False)
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)
