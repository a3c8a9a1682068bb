"""A training as its page shows it: curves, what the student answers, checkpoints."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import rows
from service.shared import StorageError
from service.site import Site
from service.store import light
from service.tables import Artifact, Event, Job, utc

CURVE_POINTS = 600
SAMPLED_STEPS = 200
MOST_BYTES = 1 << 30
"""A larger dataset is not looked into for a page that moves."""
NOT_TERMS = frozenset(
    {"step", "steps", "epoch", "tokens_per_s", "loss", "entropy", "grad_norm", "learning_rate"}
)
"""What a step tells besides the terms of its loss."""

Told = Sequence[tuple[str, Mapping[str, Any]]]
"""Types and data of `step` and `validation` events, in order."""
Columns = dict[tuple[str, str], dict[int, float]]
"""(type of event, name) -> step -> value."""


@dataclass(frozen=True)
class Checkpoint:
    """A place from which the training could go on."""

    step: int
    at: datetime
    validation: float | None
    """Loss that was measured there."""
    best: bool
    """The lowest until then, where the best is kept."""


@dataclass(frozen=True)
class Samples:
    """What the student answered at one measurement."""

    job_id: str
    step: int
    rows: list[dict[str, Any]]
    """id, prompt, reference, student, ended; `beside` adds teacher and gold."""
    steps: list[int]
    """Of all measurements, the newest first."""


@dataclass(frozen=True)
class Training:
    """A training's samples and checkpoints."""

    id: str
    samples: Samples | None
    checkpoints: list[Checkpoint]


def look(session: Session, job_id: str) -> Training:
    """What there is of a training now."""
    return Training(job_id, samples(session, job_id, None), checkpoints(session, job_id))


def samples(session: Session, job_id: str, step: int | None) -> Samples | None:
    """Those of a step, or the newest; None where there are none."""
    number = Event.data["step"].as_integer()
    mine = (Event.job_id == job_id) & (Event.type == "samples")
    newest = select(Event).where(mine).order_by(Event.id.desc())
    steps = list(session.scalars(newest.with_only_columns(number).limit(SAMPLED_STEPS)))
    wanted = newest if step is None else newest.where(number == step)
    found = session.scalars(wanted.limit(1)).first()
    if found is None:
        return None
    return Samples(job_id, int(found.data["step"]), list(found.data["rows"]), steps)


def beside(site: Site, job_id: str, samples: Samples | None) -> Samples | None:
    """With what the dataset says of each row: the teacher whose answer stands there, and a gold
    answer that came with the seed. As they were, where the dataset is gone or too large."""
    if samples is None:
        return None
    with site.sessions.reading() as session:
        spec = session.get_one(Job, job_id).spec
        named = session.get(Artifact, (spec.get("train") or {}).get("dataset") or "")
    if named is None or named.bytes > MOST_BYTES:
        return samples
    try:
        path = site.store.path(named, light)
        found = _origins(path, tuple(str(row["id"]) for row in samples.rows))
    except (OSError, StorageError):
        return samples
    return replace(samples, rows=[row | found.get(str(row["id"]), {}) for row in samples.rows])


@lru_cache(maxsize=64)
def _origins(dataset: Path, ids: tuple[str, ...]) -> dict[str, dict[str, str | None]]:
    """Nothing that is published changes, and a training asks the same rows each time."""
    return {
        id: {"teacher": row.teacher, "gold": row.gold}
        for id, row in rows.some(dataset, ids).items()
    }


def checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """Those that were written, the newest first; a run that was taken up again tells twice."""
    query = select(Event).where(Event.job_id == job_id).order_by(Event.id)
    losses = {
        event.data.get("step"): event.data.get("loss")
        for event in session.scalars(query.where(Event.type == "validation"))
    }
    named = Event.data["name"].as_string().in_(["checkpoint", "best"])
    written: dict[int, datetime] = {}
    best: set[int] = set()
    for event in session.scalars(query.where(Event.type == "phase", named)):
        said = re.match(r"step (\d+)", str(event.data.get("detail")))
        if said and event.data["name"] == "best":
            best.add(int(said[1]))
        if said:
            written[int(said[1])] = utc(event.at)
    return [
        Checkpoint(step, written[step], losses.get(step), step in best)
        for step in sorted(written, reverse=True)
    ]


def curves(told: Told) -> dict[str, Any]:
    """Steps and panels of series, thinned to what a screen can show; validations are all kept."""
    columns: Columns = {}
    for kind, data in told:
        for name, value in _figures(data):
            columns.setdefault((kind, name), {})[int(data["step"])] = value
    steps = _kept(columns)
    panels = [
        {"label": label, "series": _series(columns, names, steps)}
        for label, names in _panels(columns)
    ]
    return {"step": steps, "panels": [panel for panel in panels if panel["series"]]}


def _figures(data: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    if not isinstance(data.get("step"), int):
        return
    for name, value in data.items():
        if name != "step" and isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)


def _kept(columns: Columns) -> list[int]:
    steps = sorted({step for column in columns.values() for step in column})
    measured = {
        step for (kind, _), column in columns.items() if kind == "validation" for step in column
    }
    every = -(-len(steps) // CURVE_POINTS) or 1
    last = len(steps) - 1
    return [
        step
        for number, step in enumerate(steps)
        if number % every == 0 or number == last or step in measured
    ]


def _panels(columns: Columns) -> list[tuple[str, list[str]]]:
    """Label and names of each plot."""
    terms = sorted({name for _, name in columns if name not in NOT_TERMS})
    alone = len(terms) == 1 and _alike(
        columns.get(("step", terms[0])), columns.get(("step", "loss"))
    )
    return [
        ("loss, nats per token", ["loss"]),
        ("terms of the loss, per token", [] if alone else terms),
        ("entropy, nats per token", ["entropy"]),
        ("norm of the gradient", ["grad_norm"]),
        ("learning rate", ["learning_rate"]),
    ]


def _alike(one: dict[int, float] | None, other: dict[int, float] | None) -> bool:
    """Whether a loss has but one term, so that its plot would be the loss's again."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    return all(math.isclose(one[step], other[step], rel_tol=1e-3) for step in one)


def _series(columns: Columns, names: list[str], steps: list[int]) -> list[dict[str, Any]]:
    found = []
    for name in names:
        for kind in ("step", "validation"):
            column = columns.get((kind, name))
            if column:
                words = _words(name, kind, len(names) == 1)
                values = [column.get(step) for step in steps]
                found.append({"name": words, "points": kind == "validation", "values": values})
    return found


def _words(name: str, kind: str, alone: bool) -> str:
    split = "training" if kind == "step" else "validation"
    return split if alone else f"{name.replace('_', ' ')}, {split}"
