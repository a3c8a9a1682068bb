"""A stage's model directory, as its method makes it: whole, or not there at all."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prompts.files import sync
from trainer.checkpoint import publish
from trainer.compress import (
    depth,
    folding,
    magnitude,
    ptq,
    qaf,
    qat,
    sparsegpt,
    svd,
    wanda,
    width,
)
from trainer.compress.measuring import OWN, PICKLED, digest_model
from trainer.compress.moments import Collect
from trainer.compress.outcome import Outcome
from trainer.compress.plan import Plan
from trainer.compress.reloading import check_saved, speak
from trainer.data import TokenRow
from trainer.events import Emit
from trainer.loading import load_model
from trainer.spec import StageSpec

Apply = Callable[[Any, PreTrainedModel, Sequence[TokenRow]], Outcome]
Stage = Callable[[Any, PreTrainedModel, Sequence[TokenRow], Collect], Outcome]


def _alone(apply: Apply) -> Stage:
    """A stage that makes its own statistics, through what it has changed already, or has none."""
    return lambda stage, model, rows, gather: apply(stage, model, rows)


STAGES: dict[str, Stage] = {
    "magnitude": _alone(magnitude.apply),
    "wanda": _alone(wanda.apply),
    "sparsegpt": _alone(sparsegpt.apply),
    "depth": _alone(depth.apply),
    "width": _alone(width.apply),
    "svd": svd.apply,
    "tensor": _alone(folding.apply),
    "ptq": ptq.apply,
}
"""All kinds but those that train."""

TRAINED: dict[str, Callable[[Any, qat.Workplace], Outcome]] = {"qat": qat.run, "qaf": qaf.run}
"""Those that train, from the directories themselves."""

UNCHANGED = ("heal", "evaluate")
"""Those whose method leaves the model as it is: what trains or measures it comes after."""

REPORT = "report.json"
"""What makes a stage a finished one; written last."""
MADE = "made.json"
"""What makes a method's model a whole one, to be healed and measured."""
TRAINING = "training"
"""Where a stage that trains keeps its checkpoints while it does."""

SHARED = "its statistics are those of an earlier stage's calibration pass on the same model"
WEIGHTS = (".safetensors", ".safetensors.index.json", *PICKLED)


@dataclass(frozen=True)
class Made:
    """A model directory that a stage's method wrote, before any heal."""

    details: dict[str, Any]
    notes: tuple[str, ...]
    seconds: float


def make(
    plan: Plan, stage: StageSpec, source: Path, directory: Path, digest: str, emit: Emit
) -> Made:
    """Write `made/`, or find the one that an interrupted run of this stage left complete."""
    marker = directory / MADE
    if marker.is_file():
        kept = json.loads(marker.read_text("utf-8"))
        if kept.pop("digest") == digest:
            return Made(kept["details"], tuple(kept["notes"]), kept["seconds"])
    _clear(directory)
    started = time.monotonic()
    served, gather = plan.shared.served, plan.shared.of(_moments_key(plan, stage, source))
    details: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if stage.kind in UNCHANGED:
        _publish(partial(_copy, source), source, directory)
    else:
        outcome = _apply(plan, stage, source, directory, gather, emit)
        details, notes = outcome.details, outcome.notes
        said = speak(outcome.saved or outcome.model, plan.measuring.rows)
        _publish(outcome.save or outcome.model.save_pretrained, source, directory)
        del outcome  # two of a large model need not be in memory
        details = {
            **details,
            "reloaded": check_saved(said, directory / "made", plan.measuring.rows),
        }
    notes = (*notes, *((SHARED,) if plan.shared.served > served else ()))
    made = Made(details, notes, time.monotonic() - started)
    fields = {"details": made.details, "notes": made.notes, "seconds": made.seconds}
    write(marker, json.dumps({"digest": digest, **fields}))
    return made


def _apply(
    plan: Plan, stage: StageSpec, source: Path, directory: Path, gather: Collect, emit: Emit
) -> Outcome:
    if stage.kind in TRAINED:
        training, threads = directory / TRAINING, plan.spec.threads
        place = qat.Workplace(source, plan.start, plan.dataset, training, threads, emit)
        return TRAINED[stage.kind](stage, place)
    return STAGES[stage.kind](stage, load_model(source), plan.calibration(stage), gather)


def _copy(source: Path, target: Path) -> None:
    """Packed or not, byte for byte."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*OWN))


def _clear(directory: Path) -> None:
    """Take out what another stage or run left, first what says that the rest is whole; a
    training's checkpoints know their own run."""
    directory.mkdir(parents=True, exist_ok=True)
    for said in (REPORT, MADE):
        (directory / said).unlink(missing_ok=True)
    sync(directory)
    for path in directory.iterdir():
        if path.name != TRAINING:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _publish(save: Callable[[Path], Any], source: Path, directory: Path) -> None:
    def whole(writing: Path) -> None:
        save(writing)
        _copy_companions(source, writing)

    publish_whole(whole, directory, directory / "made")


def publish_whole(save: Callable[[Path], Any], directory: Path, target: Path) -> None:
    """Whole under its name, or not there at all; `directory` holds it until then."""
    writing = directory / ".writing"
    shutil.rmtree(writing, ignore_errors=True)
    try:
        save(writing)
        publish(writing, target)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _moments_key(plan: Plan, stage: StageSpec, source: Path) -> str:
    """What statistics depend on: the weights, and the rows."""
    return f"{digest_model(source)}/{len(plan.calibration(stage))}"


def _copy_companions(source: Path, target: Path) -> None:
    """Tokenizer, chat template and whatever else stands beside the weights."""
    for path in sorted(source.iterdir()):
        known = path.name.endswith(WEIGHTS) or path.name in OWN or (target / path.name).exists()
        if path.is_file() and not known:
            shutil.copy2(path, target / path.name)


def write(path: Path, text: str) -> None:
    """A file that is whole or not there."""
    written = path.with_name(f".{path.name}.writing")
    written.write_text(text, "utf-8")
    written.replace(path)
