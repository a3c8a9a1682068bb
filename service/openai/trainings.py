"""Train jobs as OpenAI's clients see them: the job, its events, its checkpoints."""

import re
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.openai.objects import TUNING, Object, outside, seconds
from service.tables import Artifact, Event, Job
from trainer.spec import Optimization

METHODS = {"supervised": "sequence_level"}
"""OpenAI's names of methods that have another here; all others go by their own."""
MULTIPLIER = "learning_rate_multiplier"
LEVELS = {"error": "error", "crash": "error", "warning": "warn"}


def tuning_object(session: Session, job: Job) -> Object:
    """A train job in OpenAI's form."""
    train = job.spec["train"]
    dataset = session.get(Artifact, train["dataset"])
    files = [each for each in (dataset.inputs if dataset else []) if each.startswith("file-")]
    chosen = train["optimization"]
    figures = {
        "n_epochs": chosen["epochs"],
        "batch_size": chosen["batch_size"],
        MULTIPLIER: chosen["learning_rate"] / Optimization().learning_rate,
    }
    kind = {name: ours for ours, name in METHODS.items()}.get(train["method"], train["method"])
    error = {"code": job.reason or "failed", "message": job.detail or "", "param": None}
    return {
        "id": outside(job.id, TUNING),
        "object": "fine_tuning.job",
        "created_at": seconds(job.created_at),
        "error": error if job.state == "failed" else None,
        "fine_tuned_model": job.result.get("model"),
        "finished_at": seconds(job.finished_at),
        "hyperparameters": figures,
        "method": {"type": kind, kind: {"hyperparameters": figures}},
        "model": train["student"],
        "organization_id": "retort",
        "result_files": [],
        "seed": chosen["seed"],
        "status": job.state,
        "trained_tokens": _tokens_learnt(session, job),
        "training_file": files[0] if files else train["dataset"],
        "validation_file": None,
    }


def _tokens_learnt(session: Session, job: Job) -> int | None:
    """Completion tokens over all epochs, once there is a model."""
    model = session.get(Artifact, job.result.get("model", ""))
    card = model.summary.get("card") if model is not None else None
    return card.get("tokens_learnt") if card else None


def checkpoints(session: Session, job: Job) -> list[Object]:
    """Those that were written and, at the end, the model; newest first."""
    kinds = ("phase", "step", "validation")
    query = select(Event).where(Event.job_id == job.id, Event.type.in_(kinds)).order_by(Event.id)
    metrics: dict[str, Any] = {}
    found: list[Object] = []
    for event in session.scalars(query):
        if event.type == "phase":
            step = re.match(r"step (\d+)", str(event.data.get("detail")))
            if event.data.get("name") == "checkpoint" and step:
                name = f"{outside(job.id, TUNING)}:step-{step[1]}"
                found.append(_checkpoint(job, event.id, int(step[1]), name, metrics, event))
        else:
            metrics = metrics | _metrics(event)
    model = job.result.get("model")
    if model is not None and metrics:
        found.append(_checkpoint(job, 0, int(metrics.get("step", 0)), model, metrics, None))
    return found[::-1]


def _checkpoint(
    job: Job, number: int, step: int, name: str, metrics: dict[str, Any], event: Event | None
) -> Object:
    return {
        "id": f"ftckpt-{job.id.removeprefix('job-')}-{number or 'final'}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": seconds(event.at if event else job.finished_at),
        "fine_tuned_model_checkpoint": name,
        "fine_tuning_job_id": outside(job.id, TUNING),
        "metrics": dict(metrics),
        "step_number": step,
    }


def event_object(event: Event) -> Object:
    """What happened, in OpenAI's form."""
    metrics = _metrics(event)
    words = ", ".join(f"{name} {value}" for name, value in event.data.items() if value is not None)
    return {
        "id": f"ftevent-{event.id}",
        "object": "fine_tuning.job.event",
        "created_at": seconds(event.at),
        "level": LEVELS.get(event.type, "info"),
        "message": f"{event.type}: {words}"[:2000],
        "type": "metrics" if metrics else "message",
        "data": metrics or event.data,
    }


def _metrics(event: Event) -> dict[str, Any]:
    loss = {"step": "train_loss", "validation": "valid_loss"}.get(event.type)
    if loss is None:
        return {}
    return {"step": event.data.get("step"), loss: event.data.get("loss")}
