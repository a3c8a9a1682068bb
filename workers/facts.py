"""The facts of a chain, gathered from SQL and the store for its report."""

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from prompts.dataset import Manifest, read_manifest
from service import jobs
from service.problems import Problem
from service.spec import BuildJob, ServeJob, TrainJob
from service.tables import Artifact, Event, Job, Teacher, now
from trainer.compress.report import StageReport
from trainer.measurement import Measurement
from trainer.report import chain as report
from trainer.spec import ForwardKL
from workers.errands import Errand
from workers.inputs import Inputs, read_json

PACKAGES = ("retort-distill", "torch", "transformers", "llmcompressor", "compressed-tensors")
NOT_NEEDED = ("target", "budget", "cancelled")


@dataclass(frozen=True)
class ModelEnd:
    """The teacher, or the model that the student started from."""

    reference: str
    """As the recipe names it."""
    path: str
    loadable: bool
    """Whether its weights are at hand."""
    why: str = ""


@dataclass(frozen=True)
class Parts:
    """A chain's jobs by what they do."""

    serve: Job | None
    build: Job | None
    train: Job | None
    compress: Job | None


def sort_parts(found: list[Job]) -> Parts:
    """Jobs by kind."""
    by_kind = {job.kind: job for job in found}
    return Parts(*(by_kind.get(kind) for kind in ("serve", "build", "train", "compress")))


def published(found: list[Job]) -> list[str]:
    """Ids of everything that these jobs published."""
    ids: list[str] = []
    for job in found:
        single = (job.result.get(name) for name in ("dataset", "model"))
        ids += [each for each in (*single, *job.result.get("models", [])) if each]
    return list(dict.fromkeys(ids))


def ends(inputs: Inputs, found: list[Job]) -> dict[str, ModelEnd]:
    """Role -> model: the two ends of the report's table, as far as the chain names them."""
    parts = sort_parts(found)
    named = {"teacher": _teacher(inputs.session, parts), "base": _base(parts)}
    return {role: _end(inputs, name) for role, name in named.items() if name is not None}


def gather(
    errand: Errand, job: Job, found: list[Job], model_ends: dict[str, ModelEnd]
) -> report.Chain:
    """Everything that SQL and the store know of a chain."""
    parts = sort_parts(found)
    with errand.site.sessions.reading() as session:
        dataset, manifest = _dataset(errand, session, parts)
        models = _models(errand, session, parts, model_ends)
        lineage = _lineage(session, [*errand.used, *published(found)])
        training = _training(session, parts)
    skills = {skill for row in models if row.measurement for skill in row.measurement.skills}
    return report.Chain(
        id=job.id,
        recipe=_recipe(job),
        created_at=now(),
        distilled=tuple(kind for kind in (manifest.kinds if manifest else ()) if kind in skills),
        parts=tuple(_part(part) for part in found if part.id != errand.job.id),
        dataset=dataset,
        training=training,
        models=tuple(models),
        lineage=lineage,
        machine=_machine(),
        versions=_versions(),
        notes=_notes(found),
        why=_missing(dataset, training),
    )


def _recipe(job: Job) -> report.Recipe:
    text = yaml.safe_dump(job.spec, sort_keys=False, allow_unicode=True)
    return report.Recipe(name=job.name, text=text, spec=job.spec)


def _part(job: Job) -> report.Part:
    return report.Part(
        id=job.id,
        kind=job.kind,
        state=job.state,
        reason=job.reason,
        started_at=_utc(job.started_at),
        finished_at=_utc(job.finished_at),
        attempts=max(1, job.attempts),
    )


def _dataset(
    errand: Errand, session: Session, parts: Parts
) -> tuple[report.DatasetFacts | None, Manifest | None]:
    artifact = session.get(Artifact, _dataset_id(parts) or "")
    if artifact is None:
        return None, None
    manifest = read_manifest(errand.site.store.path(artifact))
    totals = manifest.totals
    facts = report.DatasetFacts(
        id=artifact.id,
        name=artifact.name,
        version=artifact.version,
        kind="+".join(manifest.kinds) or None,
        accepted=manifest.counts.accepted,
        rejected={why: n for why, n in manifest.reasons.items() if why not in NOT_NEEDED},
        not_needed={why: n for why, n in manifest.reasons.items() if why in NOT_NEEDED},
        splits=manifest.splits,
        prompt_tokens=_whole(totals.get("prompt_tokens")),
        completion_tokens=_whole(totals.get("completion_tokens")),
        requests=_whole(totals.get("requests")),
        teacher=", ".join(manifest.teachers) or None,
        teacher_revision=", ".join(manifest.teacher_revisions) or None,
        teacher_seconds=totals.get("teacher_seconds"),
    )
    return facts, manifest


def _dataset_id(parts: Parts) -> str | None:
    if parts.build is not None:
        return parts.build.result.get("dataset")
    if parts.train is not None:
        spec = jobs.spec_of(parts.train)
        return spec.train.dataset if isinstance(spec, TrainJob) else None
    return None


def _training(session: Session, parts: Parts) -> report.Training | None:
    if parts.train is None:
        return None
    spec = jobs.spec_of(parts.train)
    assert isinstance(spec, TrainJob)
    steps = _told(session, parts.train.id, "step")
    validation = _told(session, parts.train.id, "validation")
    card = _card(session, parts.train)
    rows = card.get("dataset", {})
    return report.Training(
        method=spec.train.method,
        job=parts.train.id,
        rows=rows.get("rows"),
        left_out=rows.get("too_long"),
        seed=spec.train.optimization.seed,
        threads=card.get("threads"),
        steps=tuple(
            report.Step(
                step=step["step"],
                loss=step.get("loss"),
                learning_rate=step.get("learning_rate"),
                tokens_per_s=step.get("tokens_per_s"),
            )
            for step in steps
        ),
        validation=tuple(
            report.Validation(step=look["step"], loss=look.get("loss")) for look in validation
        ),
    )


def _told(session: Session, job_id: str, type: str) -> list[dict[str, Any]]:
    """Events of a type by step: what a resumed run did again counts once, as it went last."""
    query = select(Event.data).where(Event.job_id == job_id, Event.type == type)
    told = {data["step"]: data for data in session.scalars(query.order_by(Event.id))}
    return [told[step] for step in sorted(told)]


def _card(session: Session, train: Job) -> dict[str, Any]:
    artifact = session.get(Artifact, train.result.get("model", ""))
    return artifact.summary.get("card") or {} if artifact is not None else {}


def _models(
    errand: Errand, session: Session, parts: Parts, model_ends: dict[str, ModelEnd]
) -> list[report.ModelRow]:
    rows = [_end_row(errand, role, end) for role, end in model_ends.items()]
    base = model_ends["base"].reference if "base" in model_ends else None
    student = _student_row(session, parts, base)
    if student is not None:
        rows.append(student)
    return rows + _stage_rows(errand, session, parts)


def _end_row(errand: Errand, role: str, end: ModelEnd) -> report.ModelRow:
    found = read_json(errand.folder / f"{role}.measurement.json")
    measurement = Measurement.model_validate(found) if found is not None else None
    why = {} if measurement else {"measurement": end.why or "the job was not asked to measure it"}
    if role == "teacher":
        return report.ModelRow(
            id=end.reference, label="teacher", role="teacher", measurement=measurement, why=why
        )
    return report.ModelRow(
        id=end.reference, label="student base", role="base", measurement=measurement, why=why
    )


def _student_row(session: Session, parts: Parts, base: str | None) -> report.ModelRow | None:
    if parts.train is None:
        return None
    artifact = session.get(Artifact, parts.train.result.get("model", ""))
    if artifact is None:
        return None
    measured = artifact.summary.get("measurement")
    tokens = _teacher_tokens(parts)
    return report.ModelRow(
        id=artifact.id,
        label="student",
        role="student",
        source=base,
        measurement=Measurement.model_validate(measured) if measured else None,
        seconds=artifact.summary.get("seconds"),
        teacher_tokens=tokens,
        why={} if measured else {"measurement": "the recipe has no evaluate"},
    )


def _teacher_tokens(parts: Parts) -> int | None:
    if parts.build is None:
        return None
    spent = parts.build.result
    return _whole(spent.get("prompt_tokens", 0) + spent.get("completion_tokens", 0))


def _stage_rows(errand: Errand, session: Session, parts: Parts) -> list[report.ModelRow]:
    if parts.compress is None:
        return []
    spec = parts.compress.spec["compress"]
    start = session.get(Artifact, spec.get("model") or "")
    ids = {str(errand.site.store.path(start)): start.id} if start is not None else {}
    rows = []
    for model_id in parts.compress.result.get("models", []):
        artifact = session.get_one(Artifact, model_id)
        stage = StageReport.model_validate(artifact.summary["stage"])
        ids[stage.model] = artifact.id
        rows.append(
            report.ModelRow(
                id=artifact.id,
                label=stage.kind,
                role="stage",
                source=ids.get(stage.source),
                stage=stage,
            )
        )
    return rows


def _lineage(session: Session, ids: list[str]) -> tuple[report.Artifact, ...]:
    """The artifacts and everything that they were made from."""
    nodes: dict[str, report.Artifact] = {}
    waiting = list(ids)
    while waiting:
        found = session.get(Artifact, waiting.pop(0))
        if found is None or found.id in nodes:
            continue
        nodes[found.id] = report.Artifact(
            id=found.id,
            kind=found.kind,
            name=found.name,
            version=found.version,
            bytes=found.bytes,
            sha256=found.sha256,
            inputs=tuple(found.inputs),
        )
        waiting += found.inputs
    return tuple(nodes[each] for each in sorted(nodes))


def _teacher(session: Session, parts: Parts) -> str | None:
    """The teacher's weights as the chain names them; its registered name if they are elsewhere."""
    if parts.serve is not None:
        serve = jobs.spec_of(parts.serve)
        return serve.model if isinstance(serve, ServeJob) else None
    if parts.build is not None:
        build = jobs.spec_of(parts.build)
        assert isinstance(build, BuildJob)
        row = session.get(Teacher, build.build.teacher)
        return (row.model if row is not None else None) or build.build.teacher
    if parts.train is not None:
        train = jobs.spec_of(parts.train)
        if isinstance(train, TrainJob) and isinstance(train.train, ForwardKL):
            return train.train.teacher
    return None


def _base(parts: Parts) -> str | None:
    if parts.train is None:
        return None
    spec = jobs.spec_of(parts.train)
    return spec.train.student if isinstance(spec, TrainJob) else None


def _end(inputs: Inputs, reference: str) -> ModelEnd:
    try:
        path = inputs.model(reference)
    except Problem as problem:
        return ModelEnd(
            reference, reference, False, f"its weights are not at hand: {problem.detail}"
        )
    local = Path(path).is_dir()
    return ModelEnd(reference, path, local, "" if local else f"{path} is not a local directory")


def _machine() -> report.Machine:
    return report.Machine(
        cpu=_cpu(),
        cores=psutil.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
    )


def _cpu() -> str | None:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _notes(found: list[Job]) -> tuple[str, ...]:
    again = [job for job in found if job.attempts > 1 and job.kind != "build"]
    return tuple(f"{job.kind} {job.id} took {job.attempts} attempts" for job in again)


def _missing(
    dataset: report.DatasetFacts | None, training: report.Training | None
) -> dict[str, str]:
    why = {}
    if dataset is None:
        why["dataset"] = "the chain built none"
    if training is None:
        why["training"] = "the chain trained nothing"
    return why


def _utc(moment: datetime | None) -> datetime | None:
    """SQLite gives times back without their zone; all of them are UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _whole(number: float | None) -> int | None:
    return round(number) if number is not None else None
