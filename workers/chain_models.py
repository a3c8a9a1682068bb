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
    """Teacher, base, student, what else a compression started from, stages as they ran."""
    rows = [_end_row(errand, role, end) for role, end in model_ends.items()]
    base = model_ends["base"].reference if "base" in model_ends else None
    student = _student_row(session, parts, base)
    if student is not None:
        rows.append(student)
    return rows + _start_row(session, parts, {row.id for row in rows}) + _stage_rows(session, parts)


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


def _start_row(session: Session, parts: Parts, known: set[str]) -> list[report.ModelRow]:
    """A model that was given to a compression: its first stage has measured it."""
    stages, start = _stages(session, parts), _start(parts)
    if not stages or start in known or stages[0][1].index > 0:
        return []
    artifact = session.get(Artifact, start)
    measured = stages[0][1].before.measurement
    return [
        report.ModelRow(
            id=start,
            label=artifact.name if artifact is not None else Path(start).name,
            role="base" if parts.train is None else "stage",
            measurement=measured,
            why={} if measured else {"measurement": "the compression has no evaluate"},
        )
    ]


def _stage_rows(session: Session, parts: Parts) -> list[report.ModelRow]:
    ids: dict[str, str] = {}
    rows = []
    for model_id, stage in _stages(session, parts):
        if stage.index == 0:
            ids[stage.source] = _start(parts)
        ids[stage.model] = model_id
        rows.append(
            report.ModelRow(
                id=model_id,
                label=stage.label,
                role="stage",
                source=ids.get(stage.source),
                stage=stage,
            )
        )
    return rows


def _stages(session: Session, parts: Parts) -> list[tuple[str, StageReport]]:
    """Id and report of each stage that was published, in order."""
    made = parts.compress.result.get("models", []) if parts.compress is not None else []
    found = [(id, session.get_one(Artifact, id).summary["stage"]) for id in made]
    return [(id, StageReport.model_validate(stage)) for id, stage in found]


def _start(parts: Parts) -> str:
    return str(parts.compress.spec["compress"].get("model")) if parts.compress is not None else ""


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
