"""Stages in order, each a function of a model directory. What has a valid report is not redone."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from trainer.checkpoint import publish
from trainer.compress import card
from trainer.compress.backend import name_backend
from trainer.compress.engines import obstacles
from trainer.compress.gate import (
    FAILED,
    GateFailed,
    find_failures,
    find_serving_failures,
    ungated,
)
from trainer.compress.heal import heal_model, method_of, unhealed, with_threads
from trainer.compress.making import MADE, REPORT, TRAINING, make, publish_whole, write
from trainer.compress.measuring import digest_model, estimate_distance
from trainer.compress.plan import Plan, is_served, make_plan
from trainer.compress.points import RATIO_FIELDS, Point, lay_out
from trainer.compress.report import (
    HealFacts,
    ModelFacts,
    ServingComparison,
    SideBySide,
    StageReport,
    SweepPoint,
)
from trainer.compress.serving import compare_with_vllm
from trainer.compress.vllm_server import ServerFailed
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.loading import weight_files
from trainer.measurement import Distance
from trainer.memory import keep_imports
from trainer.spec import CompressSpec, StageSpec

VERSION = 7
"""Part of every digest: a change of what stages do makes old reports stale."""


DENSE = "not checked: stored as any dense model is; a stage of kind evaluate measures it there"


@dataclass(frozen=True)
class Found:
    """What measuring found."""

    before: ModelFacts
    after: ModelFacts
    kl_from_source: float
    kl_tokens: int
    from_source: Distance
    answers: tuple[SideBySide, ...]


def run(
    spec: CompressSpec, out: Path, emit: Emit, vllm_python: Path | None = None
) -> list[StageReport]:
    """Run the stages into `out/stage-<i>-<kind>/`; one report each, in order.

    `vllm_python` is the interpreter of an environment with vLLM, for the serving check. Raises
    BadInput before anything is spent, and GateFailed, once all branches are made, where a stage
    lost more than it may: what follows such a stage is left out.
    """
    plan = make_plan(spec, emit, vllm_python)
    keep_imports()
    reports: dict[int, StageReport] = {}
    refused: list[StageReport] = []
    ended: set[int | None] = set()
    for index, point in enumerate(lay_out(plan.spec)):
        if point.before in ended:
            ended.add(index)
            why = "was left out: a stage that it builds on did not pass its gate"
            emit("warning", {"detail": f"stage {index} ({point.label}) {why}"})
            continue
        report = _finished(plan, index, point, out, reports)
        if report is None:
            with _full_disk_named(out):
                report = _run_stage(plan, index, point, out, reports, emit)
        emit("stage", {"index": index, "kind": report.kind, "report": report.model_dump()})
        if not report.passed and point.ratio is None:  # a sweep asks how much is too much
            ended.add(index)
            refused.append(report)
        reports[index] = report
    if refused:
        raise GateFailed(refused[0])
    return list(reports.values())


@contextlib.contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    """A full disk is told as such; safetensors has an error of its own for it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if "No space left" not in str(error) and "quota exceeded" not in str(error):
            raise
        raise BadInput(
            f"the disk of {out} is full",
            f"{shutil.disk_usage(out).free / 1e6:.0f} MB are free. Free some and submit again: "
            "finished stages are kept.",
        ) from error


def _finished(
    plan: Plan, index: int, point: Point, out: Path, reports: Mapping[int, StageReport]
) -> StageReport | None:
    """The report of this very stage on this very model, where one was written."""
    directory, stage = _directory(out, index, point.stage), point.stage
    try:
        text = (directory / REPORT).read_text("utf-8")
        report = StageReport.model_validate_json(text)
    except (FileNotFoundError, ValidationError):
        return None
    source, model = _source(plan, point, reports), directory / "model"
    if report.serving_note.startswith(FAILED):
        return None  # a server may fail to start for want of memory or time: that can pass
    if report.digest != _digest(plan, index, stage, source) or not _is_whole(model, report):
        return None
    placed = _placed(report, point, source, model)
    if placed != report:
        write(directory / REPORT, placed.model_dump_json(indent=1))
    return placed


def _placed(report: StageReport, point: Point, source: Path, model: Path) -> StageReport:
    """As things lie now: a directory may have been moved, or a sweep laid around the stage."""
    before = report.before.model_copy(update={"path": str(source)})
    after = report.after.model_copy(update={"path": str(model)})
    here = {"source": before.path, "model": after.path, "before": before, "after": after}
    return report.model_copy(update={**here, "sweep": _place(point)})


def _is_whole(model: Path, report: StageReport) -> bool:
    """Whether what the report speaks of is there, with all bytes of its weights."""
    held = sum(path.stat().st_size for path in weight_files(model))
    return (model / "config.json").is_file() and held == report.after.shape.weight_bytes


def _run_stage(
    plan: Plan,
    index: int,
    point: Point,
    out: Path,
    reports: Mapping[int, StageReport],
    emit: Emit,
) -> StageReport:
    """Make the model, heal it, measure it, judge it; the report is written last."""
    stage = point.stage
    directory, source = _directory(out, index, stage), _source(plan, point, reports)
    digest = _digest(plan, index, stage, source)
    plan.measuring.begin()
    emit("phase", {"name": f"stage {index}: {point.label}", "detail": str(source)})
    made = make(plan, stage, source, directory, digest, emit)
    healed = _heal(plan, stage, directory, emit)
    name_backend(directory / "model")
    emit("phase", {"name": f"stage {index}: measure", "detail": str(directory / "model")})
    started = time.monotonic()
    found = _measure(plan, point, source, directory / "model", reports)
    serving, note = _compare(plan, index, stage, directory, emit)
    failures = [
        *find_failures(
            stage.gate, found.before, found.after, found.kl_from_source, found.from_source
        ),
        *find_serving_failures(serving, note),
    ]
    report = StageReport(
        index=index,
        kind=stage.kind,
        digest=digest,
        passed=not failures,
        failures=tuple(failures),
        spec=stage.model_dump(mode="json"),
        source=str(source),
        model=str(directory / "model"),
        before=found.before,
        after=found.after,
        kl_from_source=found.kl_from_source,
        from_source=found.from_source,
        answers=found.answers,
        kl_tokens=found.kl_tokens,
        kl_split=plan.measuring.split,
        details=made.details,
        sweep=_place(point),
        notes=(*made.notes, *ungated(stage.gate, found.after), *unhealed(healed)),
        heal=healed,
        serving=serving,
        serving_note=note,
        calibration_rows=plan.rows_seen(stage),
        seconds=made.seconds + (healed.seconds if healed else 0.0),
        measuring_seconds=time.monotonic() - started,
    )
    _write_report(directory, report, tuple(reports.values()))
    return report


def _measure(
    plan: Plan, point: Point, source: Path, model: Path, reports: Mapping[int, StageReport]
) -> Found:
    """Both sides of the stage. A source is not measured again: an earlier report has its facts."""
    if not reports:
        before, first = plan.measuring.of_start()
    else:
        before = reports[0].before if point.before is None else reports[point.before].after
        first = reports[0].answers
    after, from_source, answers = plan.measuring.of_made(source, model, first)
    return Found(before, after, *from_source.mean_kl, estimate_distance(from_source), answers)


def _heal(plan: Plan, stage: StageSpec, directory: Path, emit: Emit) -> HealFacts | None:
    """Bring `model/` about: what was made, or that after its heal."""
    made, model = directory / "made", directory / "model"
    if stage.heal is None:
        if made.is_dir():
            publish(made, model)
        return None
    started = time.monotonic()
    before, _ = plan.measuring.kl(plan.start, made)
    method = method_of(stage.heal)
    towards = plan.dataset if method == "stored_kl" else plan.start
    emit("phase", {"name": "heal", "detail": f"{method} towards {towards}"})
    heal = with_threads(stage.heal, plan.spec.threads)
    healed = heal_model(heal, made, plan.start, plan.dataset, directory / "heal", emit)
    told = json.loads((healed / "retort.json").read_text("utf-8"))
    publish_whole(lambda writing: shutil.copytree(healed, writing), directory, model)
    after, _ = plan.measuring.kl(plan.start, model)
    return HealFacts(
        method=method,
        steps=told["steps"],
        seconds=time.monotonic() - started,
        kl_before=before,
        kl_after=after,
        reloaded=told.get("reloaded"),
    )


def _compare(
    plan: Plan, index: int, stage: StageSpec, directory: Path, emit: Emit
) -> tuple[ServingComparison | None, str]:
    """The comparison with vLLM, or why there is none."""
    if not is_served(stage, plan.expected[index]):
        return None, DENSE
    if not plan.spec.serve_check:
        return None, "not checked: serve_check is off"
    if plan.engine is None:
        return None, "not checked: no vLLM was found; name one with --vllm-python"
    if why := obstacles(plan.expected[index], plan.engine.wheel):
        return None, f"not checked: {'; '.join(why)}"
    emit("phase", {"name": "serving check", "detail": f"vLLM {plan.engine.version}"})
    try:
        prompts = plan.measuring.prompts()
        log = directory / "vllm.log"
        return compare_with_vllm(directory / "model", prompts, plan.engine, log), ""
    except ServerFailed as error:
        return None, f"{FAILED}: {error}"


def _write_report(directory: Path, report: StageReport, earlier: Sequence[StageReport]) -> None:
    """Last of all, but for the card; then what only an interrupted stage would need goes."""
    write(directory / "model" / card.NAME, card.card(report, earlier))
    write(directory / REPORT, report.model_dump_json(indent=1))
    (directory / MADE).unlink(missing_ok=True)  # before what it says is whole
    for leftover in ("made", "heal", TRAINING):
        shutil.rmtree(directory / leftover, ignore_errors=True)


def _source(plan: Plan, point: Point, reports: Mapping[int, StageReport]) -> Path:
    return plan.start if point.before is None else Path(reports[point.before].model)


def _place(point: Point) -> SweepPoint | None:
    if point.ratio is None:
        return None
    field = RATIO_FIELDS[point.stage.kind]
    return SweepPoint(stage=point.asked, field=field, ratio=point.ratio)


def _directory(out: Path, index: int, stage: StageSpec) -> Path:
    return out / f"stage-{index}-{stage.kind}"


def _digest(plan: Plan, index: int, stage: StageSpec, source: Path) -> str:
    served = plan.spec.serve_check and is_served(stage, plan.expected[index])
    asked = {
        "version": VERSION,
        "stage": stage.model_dump(mode="json", exclude={"sweep"}),
        "source": digest_model(source),
        "start": digest_model(plan.start),
        "measured": plan.measuring.digest,
        "served": served and plan.engine is not None,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
