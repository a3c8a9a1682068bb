"""What teachers do now, and how they did lately."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.tables import Chunk, Event, Grant, Job, State, now

LATELY = timedelta(days=7)
LOOKED_AT = 200
"""Newest builds of that time."""


@dataclass(frozen=True)
class Load:
    """One teacher's."""

    jobs: int = 0
    """Builds that ask it now."""
    in_flight: int = 0
    """Requests under way: as their builds last told, or as was granted of its limit."""
    tokens_per_s: float = 0.0
    """Completion tokens of these builds."""
    requests: int = 0
    """Lately, of builds that asked it alone."""
    seconds: float = 0.0
    """Of these requests, added up."""

    @property
    def latency_s(self) -> float | None:
        """Mean of a whole request."""
        return self.seconds / self.requests if self.requests else None


@dataclass
class _Sums:
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.figures[name] = self.figures.get(name, 0) + value


def loads(session: Session) -> dict[str, Load]:
    """Teacher -> its load; teachers that nothing is known of are left out."""
    sums: dict[str, _Sums] = {}
    for teacher, told in _running(session):
        sums.setdefault(teacher, _Sums()).add(
            jobs=1,
            in_flight=told.get("in_flight") or 0,
            tokens_per_s=told.get("completion_tokens_per_s") or 0,
        )
    for teacher, requests, seconds in _lately(session):
        sums.setdefault(teacher, _Sums()).add(requests=requests, seconds=seconds)
    for teacher, granted in session.execute(
        select(Grant.teacher, func.sum(Grant.granted)).group_by(Grant.teacher)
    ):
        sums.setdefault(teacher, _Sums()).figures["in_flight"] = int(granted)
    return {name: _load(one.figures) for name, one in sums.items()}


def _load(figures: Mapping[str, float]) -> Load:
    return Load(
        jobs=int(figures.get("jobs", 0)),
        in_flight=int(figures.get("in_flight", 0)),
        tokens_per_s=figures.get("tokens_per_s", 0.0),
        requests=int(figures.get("requests", 0)),
        seconds=figures.get("seconds", 0.0),
    )


def _running(session: Session) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Teacher and last news of each running build."""
    running = select(Job).where(Job.kind == "build", Job.state == State.RUNNING)
    jobs = {job.id: job for job in session.scalars(running)}
    newest = (
        select(func.max(Event.id))
        .where(Event.job_id.in_(jobs), Event.type == "progress")
        .group_by(Event.job_id)
    )
    told = {
        event.job_id: event.data
        for event in session.scalars(select(Event).where(Event.id.in_(newest)))
    }
    return [
        (teacher, told.get(job.id, {}))
        for job in jobs.values()
        if (teacher := _only_teacher(job)) is not None
    ]


def _lately(session: Session) -> Sequence[tuple[str, int, float]]:
    """Teacher, requests and their seconds, of each build of late."""
    recent = select(Job).where(Job.kind == "build", Job.created_at > now() - LATELY)
    jobs = {job.id: job for job in session.scalars(recent.order_by(Job.id.desc()).limit(LOOKED_AT))}
    spent = select(Chunk.job_id, func.sum(Chunk.requests), func.sum(Chunk.teacher_seconds))
    found = session.execute(spent.where(Chunk.job_id.in_(jobs)).group_by(Chunk.job_id))
    return [
        (teacher, int(requests or 0), float(seconds or 0))
        for job_id, requests, seconds in found
        if (teacher := _only_teacher(jobs[job_id])) is not None
    ]


def _only_teacher(job: Job) -> str | None:
    """Of a build that asks one alone: figures of several can't be told apart."""
    build = job.spec.get("build", {})
    return None if build.get("teachers") else build.get("teacher")
