"""Students and batches as a run makes them."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from prompts.record import Kind, Record
from tests.trainer.conftest import make_model, make_record, make_records, save_model
from trainer.batch import Batch, pad
from trainer.events import silent
from trainer.preparation import Prepared, make_objective, prepare
from trainer.spec import TrainSpec
from trainer.student import Moment, Student

NOW = Moment(step=3, seed=0, rank=0)


def spec_of(place: Path, method: str, **fields: Any) -> TrainSpec:
    """A spec whose student and teacher are tiny models under `place`."""
    student, teacher = place / "student", place / "teacher"
    if not student.exists():
        save_model(student, make_model())
        save_model(teacher, make_model(1, hidden_size=48, intermediate_size=48))
    named = {"method": method, "student": str(student), **fields}
    optimization = {"batch_size": 4, "threads": 1, "max_length": 64, "learning_rate": 1e-2}
    named["optimization"] = {**optimization, **fields.get("optimization", {})}
    if method in ALONE:
        return TypeAdapter[TrainSpec](TrainSpec).validate_python(named)
    return TypeAdapter[TrainSpec](TrainSpec).validate_python({"teacher": str(teacher), **named})


ALONE = {"sequence_level", "rationale_then_answer", "step_by_step", "stored_kl", "served_kl"}


def made(spec: TrainSpec, records: list[Record] | None = None) -> tuple[Prepared, Student]:
    """What is ready before the first step, on CoT rows unless others are given."""
    run = prepare(spec, make_records(6) if records is None else records, [], silent)
    return run, Student(run.model, make_objective(run, silent, ExitStack()))


def loss_of(student: Student, batch: Batch, count: float | None = None) -> tuple[Tensor, Any]:
    """Of a batch, over its own kept tokens unless another count is given."""
    found: tuple[Tensor, Any] = student(lambda one: one.loss(batch, count or float(batch.kept)))
    return found


def learnt(student: Student, batches: list[Batch], moment: Moment = NOW) -> list[Batch]:
    """What a step learns from."""
    assert student.objective.passes is not None
    with torch.no_grad():
        return student.objective.passes(student, batches, moment)


def all_rows(run: Prepared) -> Batch:
    return pad(run.rows.rows)


def icl_records(count: int) -> list[Record]:
    """Rows as an in-context build with the default template leaves them."""
    rows = []
    for number in range(count):
        query = f"w{number} w{number + 5}"
        demos = "Input: w1 w2 Output: w2 \n\nInput: w7 w8 Output: w8 \n\n"
        prompt = f"{demos}Input: {query}\nOutput:"
        seed = json.dumps({"id": f"r{number}", "input": query})
        more = {"seed": seed, "demo_ids": ("d1", "d2"), "reasoning": None}
        rows.append(make_record(number, prompt, f"w{number + 5}", Kind.ICL, **more))
    return rows


def dense(model: Any, batch: Batch) -> Tensor:
    """[K, V] logits of the kept positions, by way of the whole [B, T, V]."""
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids).logits[:, :-1]
    picked: Tensor = logits[batch.completion_mask[:, 1:]]
    return picked


def kept_targets(batch: Batch) -> Tensor:
    picked: Tensor = batch.input_ids[:, 1:][batch.completion_mask[:, 1:]]
    return picked
