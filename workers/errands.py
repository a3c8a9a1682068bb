"""What each kind of child job does: trainer commands, one after the other, then what is published.

An errand is a generator: what follows a `yield` happens once that command has ended well. Each
may be run again from the start after any death: outputs that are there are not made again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.jobs import spec_of
from service.site import Site
from service.spec import CompressJob, TrainJob
from service.store import ArtifactKind
from service.tables import Job
from trainer.compress.report import StageReport
from trainer.spec import EvalSpec
from workers.inputs import Inputs, compress_paths, eval_paths, read_json, train_paths, write_spec


@dataclass(frozen=True)
class Command:
    """One run of `python -m trainer`."""

    name: str
    arguments: tuple[str, ...]
    detail: str
    """For a person: what is being done to what."""
    alone: bool = True
    """False: may run as several processes under accelerate."""


@dataclass(frozen=True)
class Output:
    """A directory to publish."""

    kind: ArtifactKind
    name: str
    source: Path
    summary: dict[str, Any]
    inputs: list[str]
    after: int | None = None
    """Place in the list of the output that this one was made from too."""
    passed: bool = True


@dataclass
class Errand:
    """A job's work directory and what has come of it so far."""

    site: Site
    job: Job
    folder: Path
    used: list[str] = field(default_factory=list)
    """Ids of the artifacts that went in."""

    @property
    def out(self) -> Path:
        """Where the trainer writes."""
        return self.folder / "out"


def train_commands(errand: Errand) -> Iterator[Command]:
    """Train, then measure the student."""
    spec = spec_of(errand.job)
    assert isinstance(spec, TrainJob)
    with errand.site.sessions.reading() as session:
        inputs = Inputs(errand.site.store, session, errand.used)
        train = write_spec(errand.folder / "train.json", train_paths(spec.train, inputs))
        evaluate = eval_paths(spec.evaluate, inputs) if spec.evaluate is not None else None
    words = ("train", "--spec", str(train), "--out", str(errand.out))
    detail = f"{spec.train.method} on {spec.train.dataset}"
    yield Command("train", words, detail, alone=False)
    if evaluate is not None:
        yield from measure(errand, "student", str(errand.out / "model"), evaluate)


def train_outputs(errand: Errand) -> list[Output]:
    """The student."""
    spec = spec_of(errand.job)
    assert isinstance(spec, TrainJob)
    model = errand.out / "model"
    card = read_json(model / "retort.json") or {}
    summary = {
        "role": "student",
        "method": spec.train.method,
        "steps": card.get("steps"),
        "seconds": card.get("seconds"),
        "card": card,
        "measurement": read_json(errand.folder / "student.measurement.json"),
    }
    return [Output("model", spec.train.name, model, summary, list(errand.used))]


def compress_commands(errand: Errand) -> Iterator[Command]:
    """The whole chain of stages: the trainer skips those that are done."""
    spec = spec_of(errand.job)
    assert isinstance(spec, CompressJob)
    with errand.site.sessions.reading() as session:
        inputs = Inputs(errand.site.store, session, errand.used)
        path = errand.folder / "compress.json"
        write_spec(path, compress_paths(spec.compress, inputs))
    words = ("compress", "--spec", str(path), "--out", str(errand.out))
    kinds = ", ".join(stage.kind for stage in spec.compress.stages)
    yield Command("compress", words, kinds)


def compress_outputs(errand: Errand) -> list[Output]:
    """A model for each stage with a report, those that a gate refused included."""
    spec = spec_of(errand.job)
    assert isinstance(spec, CompressJob)
    with errand.site.sessions.reading() as session:
        inputs = Inputs(errand.site.store, session, errand.used)
        base = _model_name(inputs, spec.compress.model or "model")
    outputs: list[Output] = []
    places: dict[str, int] = {}
    for report in stage_reports(errand.out):
        model = errand.out / f"stage-{report.index}-{report.kind}" / "model"
        same = sum(stage.kind == report.kind for stage in spec.compress.stages)
        twice = same > 1 or report.sweep is not None
        name = f"{base}-{report.kind}" + (f"-{report.index}" if twice else "")
        summary = {"role": "stage", "stage": report.model_dump(mode="json")}
        outputs.append(
            Output(
                "model",
                name,
                model,
                summary | _measured(report),
                list(errand.used),
                after=places.get(str(Path(report.source).resolve())),
                passed=report.passed,
            )
        )
        places[str(model.resolve())] = len(outputs) - 1
    return outputs


def stage_reports(out: Path) -> list[StageReport]:
    """The reports of the stages that are done, in order. A stage without a readable one isn't."""
    found = [read_json(path) for path in out.glob("stage-*/report.json")]
    reports = [report for told in found if told and (report := _report(told)) is not None]
    return sorted(reports, key=lambda report: report.index)


def _report(told: dict[str, Any]) -> StageReport | None:
    """None for one with a figure that was no number where there must be one."""
    try:
        return StageReport.model_validate(told)
    except ValidationError:
        return None


def measure(errand: Errand, role: str, model: str, spec: EvalSpec) -> Iterator[Command]:
    """Measure a model into `<role>.measurement.json`, unless that is there."""
    target = errand.folder / f"{role}.measurement.json"
    if target.exists():
        return
    path = write_spec(errand.folder / "evaluate.json", spec)
    words = ("evaluate", "--model", model, "--spec", str(path), "--out", str(target))
    yield Command("evaluate", words, f"{role}: {model}")


def _measured(report: StageReport) -> dict[str, Any]:
    found = report.after.measurement
    return {"measurement": found.model_dump(mode="json") if found is not None else None}


def _model_name(inputs: Inputs, reference: str) -> str:
    """A stage's model is called by the model that the chain started from: a directory that is gone
    by now, too."""
    return Path(reference).name if "/" in reference else _artifact_name(inputs, reference)


def _artifact_name(inputs: Inputs, reference: str) -> str:
    return inputs.store.resolve(inputs.session, reference, "model").name


Commands = Callable[[Errand], Iterator[Command]]
Outputs = Callable[[Errand], list[Output]]
