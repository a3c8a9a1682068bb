"""trl's GKD as one of our specs asks for it, in a process of its own: what it learnt, and when.

    PYTHONPATH=.peers python -m benchmarks.trl_gkd --spec SPEC --out DIR --steps N --marks S S ...

First both sides compute the loss of one batch of the dataset's rows, which must agree. Then it
trains, and keeps the student at each of so many seconds of training; keeping it isn't counted.
With --ours it is our trainer that trains, and only its seconds are told.
"""

import argparse
import copy
import importlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from prompts.record import Record
from trainer.batch import pad
from trainer.data import read_records
from trainer.events import silent
from trainer.loading import load_tokenizer
from trainer.preparation import make_objective, prepare
from trainer.spec import OnPolicy, TrainSpec
from trainer.student import Student
from trainer.training import train as train_by_spec

TOLERANCE = 1e-4
"""Nats per token; both in fp32, padded on opposite sides."""


@dataclass(frozen=True)
class Kept:
    """The student at some moment."""

    step: int
    seconds: float
    """Of training, the models' loading included."""
    model: str
    """Its directory."""


@dataclass(frozen=True)
class Trained:
    """A run."""

    ours_loss: float
    theirs_loss: float
    kept: tuple[Kept, ...]
    """The finished one last."""


def train(spec: OnPolicy, out: Path, steps: int, marks: list[float]) -> Trained:
    """trl's students. Raises AssertionError where the two sides don't compute one loss."""
    assert spec.dataset is not None
    torch.set_num_threads(spec.optimization.threads or torch.get_num_threads())
    records = read_records(Path(spec.dataset), "train")
    losses = compared(spec, records, out)
    clock = clock_of(spec)
    began = clock()
    trainer = make_trainer(spec, records, out, steps)
    keeping = _Keeping(spec.student, out, clock, began, marks)
    trainer.add_callback(keeping)
    trainer.train()
    keeping.keep(trainer.model, steps)
    return Trained(*losses, tuple(keeping.kept))


def clock_of(spec: OnPolicy) -> Callable[[], float]:
    """Seconds. One thread's processor time is its wall time on a machine that does nothing else, on
    any other too; of more threads, wall time."""
    return time.process_time if spec.optimization.threads == 1 else time.monotonic


def train_ours(spec: OnPolicy, out: Path) -> float:
    """Seconds, as trl's are counted: models' loading included, and validation and checkpoints,
    which trl is spared."""
    clock = clock_of(spec)
    began = clock()
    train_by_spec(spec, out, silent)
    return clock() - began


def compared(spec: OnPolicy, records: list[Record], out: Path) -> tuple[float, float]:
    """Nats per token of the first rows, the teacher in fp32: ours, trl's."""
    plain = spec.model_copy(
        update={"teacher_load": spec.teacher_load.model_copy(update={"dtype": "fp32"})}
    )
    run = prepare(plain, records, [], silent)
    batch = pad(run.rows.rows[: spec.optimization.batch_size])
    with ExitStack() as closing, torch.no_grad():
        student = Student(run.model, make_objective(run, silent, closing))
        ours = float(student(lambda one: one.loss(batch, float(batch.kept)))[0])
    trainer = make_trainer(spec, records, out, 1)
    named = {record.id: record for record in records}
    inputs = trainer.data_collator([_messages(named[row.row]) for row in batch.rows])
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model.eval(), dict(inputs)))
    if abs(ours - theirs) > TOLERANCE:
        raise AssertionError(f"different losses of one batch: {ours} and {theirs}")
    return ours, theirs


def make_trainer(spec: OnPolicy, records: list[Record], out: Path, steps: int) -> Any:
    """trl's, on the same rows."""
    gkd: Any = importlib.import_module("trl.experimental.gkd")
    datasets: Any = importlib.import_module("datasets")
    return gkd.GKDTrainer(
        model=spec.student,
        teacher_model=spec.teacher,
        args=gkd.GKDConfig(**settings(spec, out, steps)),
        train_dataset=datasets.Dataset.from_list([_messages(record) for record in records]),
        processing_class=load_tokenizer(spec.student),
    )


def settings(spec: OnPolicy, out: Path, steps: int) -> dict[str, Any]:
    """Of its configuration: what our spec asks for. What would only slow it down here is off:
    activations made anew, bf16 autocast, logs, checkpoints."""
    optimization = spec.optimization
    if spec.divergence.kind != "jsd" or spec.kd_temperature != 1:
        raise ValueError("trl's GKD has the generalized JSD alone, without a factor of temperature")
    return {
        "output_dir": str(out / "trl"),
        "lmbda": spec.student_share,
        "beta": spec.divergence.beta,
        "temperature": spec.sampling_temperature,
        "max_new_tokens": spec.max_new_tokens,
        "teacher_model_init_kwargs": {"dtype": "float32"},
        "max_steps": steps,
        "per_device_train_batch_size": optimization.batch_size,
        "gradient_accumulation_steps": optimization.accumulation,
        "learning_rate": optimization.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": max(1, round(optimization.warmup_ratio * steps)),
        "weight_decay": optimization.weight_decay,
        "max_grad_norm": optimization.max_grad_norm,
        "max_length": optimization.max_length,
        "seed": optimization.seed,
        "gradient_checkpointing": False,
        "bf16": optimization.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "logging_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class _Keeping(TrainerCallback):
    """Keeps the student at the marks; its own time is taken off the clock."""

    def __init__(
        self,
        student: str,
        out: Path,
        clock: Callable[[], float],
        began: float,
        marks: list[float],
    ) -> None:
        self.kept: list[Kept] = []
        self._tokenizer = load_tokenizer(student)
        self._out, self._clock, self._began, self._marks = out, clock, began, sorted(marks)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> Any:
        if self._marks and self._clock() - self._began >= self._marks[0]:
            self.keep(given["model"], state.global_step)
        return control

    def keep(self, model: PreTrainedModel, step: int) -> None:
        """In the dtype that ours are saved in."""
        if self.kept and self.kept[-1].step == step:
            return
        stopped = self._clock()
        seconds = stopped - self._began
        self._marks = [mark for mark in self._marks if mark > seconds]
        place = self._out / f"at-{step}"
        saved = copy.deepcopy(model)
        nn.Module.to(saved, torch.bfloat16)
        saved.save_pretrained(place)
        self._tokenizer.save_pretrained(place)
        self.kept.append(Kept(step, seconds, str(place)))
        self._began += self._clock() - stopped


def _messages(record: Record) -> dict[str, Any]:
    both = (*record.prompt, *record.completion)
    return {"messages": [{"role": one.role, "content": one.content} for one in both]}


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trl_gkd", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="our TrainSpec of `gkd`, JSON")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--marks", type=float, nargs="*", default=[])
    given = parser.parse_args()
    spec: Any = TypeAdapter[TrainSpec](TrainSpec).validate_json(given.spec.read_text("utf-8"))
    if given.ours:
        seconds = train_ours(spec, given.out)
        (given.out / "seconds.json").write_text(json.dumps(seconds), "utf-8")
        return
    made = train(spec, given.out, given.steps, given.marks)
    (given.out / "run.json").write_text(json.dumps(asdict(made), indent=1), "utf-8")


if __name__ == "__main__":
    main()
