"""A dataset and a base model in, a student's directory out."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.files import file_sha256
from prompts.record import Record
from trainer import checkpoint
from trainer.adapters import add_lora, merge_lora
from trainer.data import TokenRows, encode, read_records
from trainer.errors import BadInput, Terminated
from trainer.events import Emit
from trainer.loading import end_ids, load_model, load_tokenizer, read_config, weight_files
from trainer.loop import DistilTrainer, check_reporting
from trainer.methods import METHODS, Setting, check_confidence
from trainer.methods.method import Encode
from trainer.plan import Plan, make_plan
from trainer.spec import Optimization, TrainSpec, WithTeacher
from trainer.stop import deferred_sigterm
from trainer.student import Objective, Student

HISTORY_POINTS = 1000
"""Losses that a model's card keeps, evenly thinned."""


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs, checked, before its first step."""

    spec: TrainSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: TokenRows
    validation: TokenRows
    records: Sequence[Record]
    """What both were made of."""
    max_length: int
    plan: Plan
    digest: str
    """Changes with whatever would change the student's weights."""


def train(
    spec: TrainSpec,
    out: Path,
    emit: Emit,
    after_step: Callable[[nn.Module], None] | None = None,
) -> Path:
    """Distil a student; the directory of the finished model, `out/model`.

    Resumes from the last complete checkpoint under `out/checkpoints`, bit for bit on a CPU; a
    finished model of the same run is returned as it is. `after_step(model)` may put back what
    optimizer steps must not change (pruned weights, say). Raises BadInput; Terminated after
    SIGTERM, with a checkpoint written.
    """
    if spec.dataset is None:
        raise BadInput("no dataset to train on", "Name one in `dataset`.")
    dataset = Path(spec.dataset)
    return train_on(
        spec,
        read_records(dataset, "train"),
        read_records(dataset, "validation"),
        out,
        emit,
        after_step,
    )


def train_on(
    spec: TrainSpec,
    records: list[Record],
    validation: list[Record],
    out: Path,
    emit: Emit,
    after_step: Callable[[nn.Module], None] | None = None,
) -> Path:
    """`train` on records at hand."""
    started = time.monotonic()
    run = prepare(spec, records, validation, emit)
    if finished(out, run.digest):
        emit("phase", {"name": "train", "detail": "this student is finished already"})
        return out / "model"
    _check_disk(out, run.model, spec.optimization)
    student = Student(run.model, make_objective(run, emit), spec.optimization.precision)
    try:
        trainer = fit(run, student, out / "checkpoints", emit, after_step)
        return _save(run, trainer, out, time.monotonic() - started)
    except (OSError, RuntimeError) as error:
        full = _out_of_memory(error) or _disk_full(error, out, run.model)
        if full is None:
            raise
        raise full from error


def prepare(
    spec: TrainSpec, records: list[Record], validation: list[Record], emit: Emit
) -> Prepared:
    """Choose the rows, load the student, render and check, make the plan. What the dataset lacks
    is said before anything is loaded."""
    optimization, method = spec.optimization, METHODS[spec.method]
    _check_options(optimization, validation)
    chosen = method.select(spec, records)
    if spec.weight_by == "confidence":
        check_confidence(chosen)
    torch.set_num_threads(optimization.threads or len(os.sched_getaffinity(0)))
    emit("phase", {"name": "load", "detail": f"student {spec.student}"})
    if read_config(spec.student).get("quantization_config"):
        raise BadInput(
            f"{spec.student} is quantized", "Packed weights can't be trained. Start before that."
        )
    tokenizer = load_tokenizer(spec.student)
    model = load_model(spec.student, dtype=torch.float32)
    ends, limit = end_ids(model, tokenizer), _limit(model, optimization, emit)
    rows = method.rows(spec, chosen, _encoder(tokenizer, limit, ends, spec.weight_by))
    held = _held(spec, validation, emit)
    held_rows = (
        method.rows(spec, held, _encoder(tokenizer, limit, ends)) if held else TokenRows((), 0, 0)
    )
    _tell_rows(rows, held_rows, optimization, emit)
    plan = make_plan(rows.rows, optimization, _ranks())
    digest = _digest(spec, rows)
    _adapt(model, spec)
    both = [*chosen, *held]
    return Prepared(spec, model, tokenizer, rows, held_rows, both, limit, plan, digest)


def make_objective(run: Prepared, emit: Emit) -> Objective:
    """The method's, over training and validation rows; loads a teacher where it has one."""
    setting = Setting(
        run.model,
        run.tokenizer,
        (*run.rows.rows, *run.validation.rows),
        run.records,
        end_ids(run.model, run.tokenizer),
        run.max_length,
        run.spec.optimization.batch_size,
        emit,
    )
    return METHODS[run.spec.method].objective(run.spec, setting)


def finished(out: Path, digest: str) -> bool:
    """Whether `out/model` is this run's result: it is renamed into place whole."""
    try:
        card = json.loads((out / "model" / "retort.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(card.get("digest") == digest)


def fit(
    run: Prepared,
    student: Student,
    directory: Path,
    emit: Emit,
    after_step: Callable[[nn.Module], None] | None = None,
) -> DistilTrainer:
    """Train by the plan; resumes from the newest valid checkpoint of `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with deferred_sigterm() as stop:
        trainer = DistilTrainer(
            student,
            run.rows.rows,
            run.validation.rows,
            run.plan,
            run.spec.optimization,
            directory,
            run.digest,
            emit,
            stop,
            after_step,
        )
        resumed = checkpoint.newest(directory, run.digest, _passed_over(emit))
        detail = f"{run.plan.steps} steps" + (f", resumed from {resumed.name}" if resumed else "")
        emit("phase", {"name": "train", "detail": detail})
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.asked and trainer.state.global_step < run.plan.steps:
            raise Terminated
    if run.spec.optimization.keep == "best":
        trainer.take_best()
    return trainer


def _save(run: Prepared, trainer: DistilTrainer, out: Path, seconds: float) -> Path:
    """The student in its base's dtype (trained from an fp32 master), whole or not at all."""
    written, target = out / ".writing-model", out / "model"
    if trainer.args.should_save:
        shutil.rmtree(written, ignore_errors=True)
        if run.spec.lora is not None:
            merge_lora(run.model)
        run.model.config.use_cache = True
        nn.Module.to(run.model, _source_dtype(run.spec.student))
        run.model.save_pretrained(written)
        run.tokenizer.save_pretrained(written)
        card = json.dumps(_card(run, trainer, seconds), indent=1)
        (written / "retort.json").write_text(card, "utf-8")
        checkpoint.publish(written, target)
    trainer.accelerator.wait_for_everyone()
    return target


def _card(run: Prepared, trainer: DistilTrainer, seconds: float) -> dict[str, Any]:
    losses = trainer.history.losses
    every = max(1, len(losses) // HISTORY_POINTS)
    return {
        "version": 1,
        "method": run.spec.method,
        "spec": run.spec.model_dump(mode="json"),
        "digest": run.digest,
        "dataset": {
            "path": run.spec.dataset,
            "rows": len(run.rows.rows),
            "too_long": run.rows.too_long,
            "completion_tokens_per_epoch": run.rows.completion_tokens,
            "validation_rows": len(run.validation.rows),
        },
        "steps": trainer.state.global_step,
        "best_step": trainer.history.best,
        "epochs": run.plan.epochs,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "losses": [*losses[:-1][::every], *losses[-1:]],
        "validation": trainer.history.validation,
    }


def _encoder(
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    ends: frozenset[int],
    weight_by: str = "none",
) -> Encode:
    def run(records: Sequence[Record]) -> TokenRows:
        made = encode(records, tokenizer, max_length, ends)
        if weight_by == "none":
            return made
        weights = {record.id: record.confidence or 0.0 for record in records}
        weighed = tuple(replace(row, weight=weights[row.row]) for row in made.rows)
        return replace(made, rows=weighed)

    return run


def _held(spec: TrainSpec, validation: list[Record], emit: Emit) -> list[Record]:
    """Validation rows that the method can use; none is no reason not to train."""
    try:
        return METHODS[spec.method].select(spec, validation) if validation else []
    except BadInput as error:
        emit("warning", {"detail": f"no validation loss: {error.title}"})
        return []


def _check_options(optimization: Optimization, validation: list[Record]) -> None:
    check_reporting(optimization)
    for name, asked in (
        ("keep best", optimization.keep == "best"),
        ("patience", optimization.patience is not None),
    ):
        if asked and not validation:
            raise BadInput(
                f"optimization.{name.replace(' ', ': ')} needs a validation split",
                "The dataset has no validation rows to choose by. Build it with some.",
            )


def _adapt(model: PreTrainedModel, spec: TrainSpec) -> None:
    if spec.lora is not None:
        torch.manual_seed(spec.optimization.seed)
        add_lora(model, spec.lora)
    if spec.optimization.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _tell_rows(
    rows: TokenRows, validation: TokenRows, optimization: Optimization, emit: Emit
) -> None:
    kept = f"{len(rows.rows)} rows, {rows.completion_tokens} completion tokens"
    long = f"{rows.too_long} longer than {optimization.max_length} tokens left out"
    emit("phase", {"name": "rows", "detail": f"{kept}; {long}"})
    if not validation.rows:
        emit("warning", {"detail": "the dataset has no validation rows: no validation loss"})


def _limit(model: PreTrainedModel, optimization: Optimization, emit: Emit) -> int:
    """Positions beyond the model's own were never trained, or don't exist."""
    positions = model.config.to_dict().get("max_position_embeddings")
    if positions is not None and positions < optimization.max_length:
        detail = f"max_length {optimization.max_length} is cut to the student's {positions}"
        emit("warning", {"detail": detail})
        return int(positions)
    return optimization.max_length


def _digest(spec: TrainSpec, rows: TokenRows) -> str:
    """Of what decides the weights: paths and what only watches the run stay out of it."""
    fields = spec.model_dump(mode="json", exclude={"name", "dataset", "student", "teacher"})
    for name in ("checkpoint_steps", "keep_checkpoints", "eval_steps", "report_to"):
        del fields["optimization"][name]
    made = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for source in (spec.student, spec.teacher if isinstance(spec, WithTeacher) else None):
        made.update(json.dumps(_fingerprint(source), sort_keys=True).encode())
    for row in rows.rows:
        made.update(row.prompt_tokens.to_bytes(4, "little") + row.ids.tobytes())
        made.update(repr(row.weight).encode())
    return made.hexdigest()


def _fingerprint(source: str | None) -> Any:
    """Of a model directory: configuration and weights; of a hub name: the name."""
    if source is None or not Path(source).is_dir():
        return source
    return [read_config(source), [file_sha256(path) for path in weight_files(source)]]


def _source_dtype(source: str) -> torch.dtype:
    config = read_config(source)
    named = config.get("dtype") or config.get("torch_dtype") or "float32"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(named, torch.float32)


def _passed_over(emit: Emit) -> Callable[[Path, str], None]:
    def tell(path: Path, problem: str) -> None:
        emit("warning", {"detail": f"{path.name} is passed over: {problem}"})

    return tell


def _checkpoint_bytes(model: PreTrainedModel) -> int:
    """fp32 weights and AdamW's two moments."""
    return 12 * sum(parameter.numel() for parameter in model.parameters())


def _check_disk(out: Path, model: PreTrainedModel, optimization: Optimization) -> None:
    out.mkdir(parents=True, exist_ok=True)
    need = _checkpoint_bytes(model) * (optimization.keep_checkpoints + 1)
    free = shutil.disk_usage(out).free
    if free < need:
        raise BadInput(
            f"{out} has too little disk space to train",
            f"{need / 1e6:.0f} MB are needed for {optimization.keep_checkpoints} checkpoints and "
            f"one in the making; {free / 1e6:.0f} MB are free. Free some, or keep fewer.",
        )


def _disk_full(error: Exception, out: Path, model: PreTrainedModel) -> BadInput | None:
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


def _out_of_memory(error: Exception) -> BadInput | None:
    """A CPU's allocator has no exception of its own."""
    told = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if not told:
        return None
    return BadInput(
        "training ran out of memory",
        f"{str(error).splitlines()[0][:200]}. Lower optimization.batch_size (and raise "
        "accumulation by as much), set gradient_checkpointing, lower max_length, or train a lora.",
    )


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
