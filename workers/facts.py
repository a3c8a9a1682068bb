"""The facts of a chain, gathered from SQL and the store for its report."""

import platform
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
from service.spec import TrainJob
from service.store import light
from service.tables import Artifact, Event, Job, now
from trainer.report import chain as report
from workers.chain_models import ModelEnd, Parts, model_rows, sort_parts
from workers.errands import Errand

PACKAGES = ("retort-distill", "torch", "transformers", "llmcompressor", "compressed-tensors")
NOT_NEEDED = ("target", "budget", "cancelled")


def published(found: list[Job]) -> list[str]:
    """Ids of everything that these jobs published."""
    ids: list[str] = []
    for job in found:
        single = (job.result.get(name) for name in ("dataset", "model"))
        ids += [each for each in (*single, *job.result.get("models", [])) if each]
    return list(dict.fromkeys(ids))


def gather(
    errand: Errand, job: Job, found: list[Job], model_ends: dict[str, ModelEnd]
) -> report.Chain:
    """Everything that SQL and the store know of a chain."""
    parts = sort_parts(found)
    with errand.site.sessions.reading() as session:
        dataset, manifest = _dataset(errand, session, parts)
        models = model_rows(errand, session, parts, model_ends)
        lineage = _lineage(session, [*errand.used, *published(found)])
        training = _training(session, parts)
        notes = _notes(session, found)
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
        notes=notes,
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
    errand.site.store.let_go(session)
    manifest = read_manifest(errand.site.store.path(artifact, light))
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
        cut=rows.get("cut"),
        unsuited=rows.get("unsuited"),
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
        samples=tuple(
            report.Samples.model_validate(one) for one in _told(session, parts.train.id, "samples")
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


def _notes(session: Session, found: list[Job]) -> tuple[str, ...]:
    """Attempts, and what the trainer warned of, once: stages that were left out among it."""
    again = [job for job in found if job.attempts > 1 and job.kind != "build"]
    notes = [f"{job.kind} {job.id} took {job.attempts} attempts" for job in again]
    for job in (job for job in found if job.kind in ("train", "compress")):
        warned = select(Event.data).where(Event.job_id == job.id, Event.type == "warning")
        for data in session.scalars(warned.order_by(Event.id)):
            notes.append(f"{job.kind}: {data.get('detail')}")
    return tuple(dict.fromkeys(notes))


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
