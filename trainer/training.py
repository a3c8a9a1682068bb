"""A dataset and a base model in, a student's directory out."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from prompts.record import Record
from trainer import checkpoint
from trainer.adapters import merge_lora
from trainer.compress.backend import name_backend
from trainer.compress.fake_quant import export, settle
from trainer.compress.reloading import check_saved, speak
from trainer.data import read_records
from trainer.errors import BadInput, Terminated
from trainer.events import Emit
from trainer.loading import stored_dtype, tokenizer_file, weight_files
from trainer.loop import DistilTrainer
from trainer.methods import find_served
from trainer.place import CARD, check_place, claimed
from trainer.preparation import Prepared, fresh_student, make_objective, prepare, rounding_of
from trainer.samples import make_sampler, thinned
from trainer.space import check_disk, disk_named, make_directory, memory_named
from trainer.spec import ServedKL, TrainSpec
from trainer.stop import deferred_stop
from trainer.student import Student

HISTORY_POINTS = 1000
"""Losses that a model's card keeps, evenly thinned."""


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
    SIGTERM or Ctrl-C, with a checkpoint written.
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
    with memory_named(spec):
        return _train(spec, records, validation, out, emit, after_step)


def _train(
    spec: TrainSpec,
    records: list[Record],
    validation: list[Record],
    out: Path,
    emit: Emit,
    after_step: Callable[[nn.Module], None] | None,
) -> Path:
    started = time.monotonic()
    check_place(spec, out)
    if isinstance(spec, ServedKL) and not (out / "model").exists():
        find_served(spec)  # before anything is loaded; a finished student needs none
    run = prepare(spec, records, validation, emit)
    if finished(out, run.digest):
        emit("phase", {"name": "train", "detail": "this student is finished already"})
        return out / "model"
    if (out / "model").exists():
        told = "is another run's student, or damaged: this run's will take its place"
        emit("warning", {"detail": f"{out / 'model'} {told}"})
    make_directory(out)
    with disk_named(out, run.model), claimed(out, emit), ExitStack() as closing:
        check_disk(out, run.model, spec.optimization, run.digest)
        objective = make_objective(run, emit, closing)
        student = Student(run.model, objective, spec.optimization.precision)
        trainer = fit(run, student, out / "checkpoints", emit, after_step)
        return _save(run, trainer, out, time.monotonic() - started)


def finished(out: Path, digest: str) -> bool:
    """Whether `out/model` is this run's result: it is renamed into place whole."""
    try:
        card = json.loads((out / "model" / CARD).read_text("utf-8"))
        return bool(card["digest"] == digest) and _whole(out / "model")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return False


def _whole(model: Path) -> bool:
    """Whether all weight files are there, at the length that their headers tell: a copy of a
    student may have been cut short, or have lost a shard. Raises as opening them does."""
    index = model / "model.safetensors.index.json"
    if index.exists():
        told = json.loads(index.read_text("utf-8"))["weight_map"].values()
        names = {model / name for name in told}
    else:
        names = set(weight_files(model))
    for name in names:
        with safe_open(name, "pt"):
            pass
    return bool(names)


def fit(
    run: Prepared,
    student: Student,
    directory: Path,
    emit: Emit,
    after_step: Callable[[nn.Module], None] | None = None,
    saves: bool = True,
) -> DistilTrainer:
    """Train by the plan; resumes from the newest valid checkpoint of `directory`, and with `saves`
    writes them there."""
    directory.mkdir(parents=True, exist_ok=True)
    with deferred_stop() as stop:
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
            make_sampler(run),
            after_step,
            saves=saves,
        )
        resumed = checkpoint.newest(directory, run.digest, _passed_over(emit))
        detail = f"{run.plan.steps} steps" + (f", resumed from {resumed.name}" if resumed else "")
        emit("phase", {"name": "train", "detail": detail})
        if resumed is None or not trainer.ended_at(resumed):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.asked:
            raise Terminated
    if run.spec.optimization.keep == "best" and not trainer.sharded:
        weights = trainer.kept_weights()
        if trainer.args.should_save:
            student.load_state_dict(weights)
    return trainer


def _save(run: Prepared, trainer: DistilTrainer, out: Path, seconds: float) -> Path:
    """The student in its base's dtype (trained from an fp32 master), whole or not at all."""
    written, target = out / ".writing-model", out / "model"
    finished = _put_together(run, trainer) if trainer.sharded else run
    if trainer.args.should_save:
        shutil.rmtree(written, ignore_errors=True)
        reloaded = _write_weights(finished, written)
        name_backend(written)
        run.tokenizer.save_pretrained(written)
        _keep_tokenizer(tokenizer_file(run.tokenizer), written)
        card = json.dumps({**_card(run, trainer, seconds), "reloaded": reloaded}, indent=1)
        (written / CARD).write_text(card, "utf-8")
        _save_samples(trainer, written)
        checkpoint.publish(written, target)
    trainer.accelerator.wait_for_everyone()
    return target


def _keep_tokenizer(base: Path | None, student: Path) -> None:
    """Byte for byte: a stored signal knows its tokenizer by the file's digest, and a training that
    wrote it anew would shut out the next."""
    if base is not None:
        shutil.copyfile(base, student / "tokenizer.json")


def _put_together(run: Prepared, trainer: DistilTrainer) -> Prepared:
    """Each rank of FSDP holds a part of the student: rank 0 makes a whole one of them."""
    weights = trainer.kept_weights()
    if not trainer.args.should_save:
        return run
    model = fresh_student(run.spec)
    named = {name.partition(".")[2]: w for name, w in weights.items() if name.startswith("model.")}
    model.load_state_dict(named)
    return replace(run, model=model)


def _write_weights(run: Prepared, directory: Path) -> dict[str, Any]:
    """Adapters merged; what was trained through its rounding packed on that grid. How far the
    files, loaded again, are from the model in memory; raises ExportDiffers where it is too far."""
    dtype, quantized = stored_dtype(run.spec.student), rounding_of(run.spec)
    rows = run.validation.rows or run.rows.rows
    run.model.eval()
    run.model.config.use_cache = True
    if quantized is not None:
        settle(run.model, quantized.stored)
        said = speak(run.model, rows)
        export(run.model, quantized, directory)
    else:
        if run.spec.lora is not None:
            merge_lora(run.model)
        # not all of `to`: transformers computes positions in fp32 in a model of any dtype
        for weight in run.model.state_dict(keep_vars=True).values():
            if weight.is_floating_point():
                weight.data = weight.data.to(dtype)
        said = speak(run.model, rows)
        run.model.save_pretrained(directory)
    return check_saved(said, directory, rows)


def _save_samples(trainer: DistilTrainer, target: Path) -> None:
    """`samples.json`: what the student said while it learned; nothing where it wasn't asked."""
    if trainer.history.samples:
        told = {"version": 1, "measurements": thinned(trainer.history.samples)}
        text = json.dumps(told, indent=1, ensure_ascii=False)
        (target / "samples.json").write_text(text, "utf-8")


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
            "cut": run.rows.cut,
            "unsuited": run.rows.unsuited,
            "completion_tokens_per_epoch": run.rows.completion_tokens,
            "validation_rows": len(run.validation.rows),
        },
        "steps": trainer.state.global_step,
        "best_step": trainer.history.best,
        "epochs": run.plan.epochs,
        "threads": torch.get_num_threads(),
        "tokens_learnt": int(trainer.history.tokens),
        "seconds": round(trainer.history.seconds + seconds, 3),
        "losses": [*losses[:-1][::every], *losses[-1:]],
        "validation": trainer.history.validation,
    }


def _passed_over(emit: Emit) -> Callable[[Path, str], None]:
    def tell(path: Path, problem: str) -> None:
        emit("warning", {"detail": f"{path.name} is passed over: {problem}"})

    return tell
