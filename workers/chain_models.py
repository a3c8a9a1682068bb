"""The models of a chain: its two ends, the student and the stages, as rows of the report."""

from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.orm import Session

from service import jobs
from service.problems import Problem
from service.spec import BuildJob, ServeJob, TrainJob
from service.tables import Artifact, Job, Teacher
from trainer.compress.report import StageReport
from trainer.measurement import Measurement
from trainer.report import chain as report
from trainer.spec import WithTeacher
from workers.errands import Errand
from workers.inputs import Inputs, read_json


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


def ends(inputs: Inputs, found: list[Job]) -> dict[str, ModelEnd]:
    """Role -> model: the two ends of the report's table, as far as the chain names them."""
    parts = sort_parts(found)
    named = {"teacher": _teacher(inputs.session, parts), "base": _base(parts)}
    both = {role: _end(inputs, name) for role, name in named.items() if name is not None}
    if "base" in both and _starts_at_random(parts):
        why = "the student began with random weights"
        both["base"] = replace(both["base"], loadable=False, why=why)
    return both


def model_rows(
    errand: Errand, session: Session, parts: Parts, model_ends: dict[str, ModelEnd]
) -> list[report.ModelRow]:
    """Teacher, base, student, stages as they ran."""
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
    return int(spent.get("prompt_tokens", 0) + spent.get("completion_tokens", 0))


def _stage_rows(errand: Errand, session: Session, parts: Parts) -> list[report.ModelRow]:
    if parts.compress is None:
        return []
    spec = parts.compress.spec["compress"]
    start = session.get(Artifact, spec.get("model") or "")
    ids = {start.path: start.id} if start is not None else {}
    rows = []
    for model_id in parts.compress.result.get("models", []):
        artifact = session.get_one(Artifact, model_id)
        stage = StageReport.model_validate(artifact.summary["stage"])
        ids[stage.model] = artifact.id
        rows.append(
            report.ModelRow(
                id=artifact.id,
                label=stage.label,
                role="stage",
                # Of an artifact: where it lay on the host that ran the stage.
                source=ids.get(stage.source) or ids.get("/".join(Path(stage.source).parts[-2:])),
                stage=stage,
            )
        )
    return rows


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
        if isinstance(train, TrainJob) and isinstance(train.train, WithTeacher):
            return train.train.teacher
    return None


def _base(parts: Parts) -> str | None:
    if parts.train is None:
        return None
    spec = jobs.spec_of(parts.train)
    return spec.train.student if isinstance(spec, TrainJob) else None


def _starts_at_random(parts: Parts) -> bool:
    spec = jobs.spec_of(parts.train) if parts.train is not None else None
    return isinstance(spec, TrainJob) and spec.train.initial == "random"


def _end(inputs: Inputs, reference: str) -> ModelEnd:
    try:
        path = inputs.model(reference)
    except Problem as problem:
        return ModelEnd(
            reference, reference, False, f"its weights are not at hand: {problem.detail}"
        )
    local = Path(path).is_dir()
    return ModelEnd(reference, path, local, "" if local else f"{path} is not a local directory")
