"""What happens to jobs, in order: written by whoever works, replayed to whoever follows."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.tables import FINISHED, Event, Job, State

STATE = "state"
"""Type of the events that tell of a new state; `data` has state, reason, detail, result."""


def emit(session: Session, job_id: str, type: str, data: dict[str, Any]) -> Event:
    """Append an event to a job, in the caller's transaction."""
    # Ids are given out before they are committed: without this lock a follower could see a later
    # id first and step over the earlier one. SQLite's single writer needs none and ignores it.
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
    event = Event(job_id=job_id, type=type, data=data)
    session.add(event)
    session.flush()
    return event


def since(session: Session, job_id: str, after_id: int = 0, limit: int = 500) -> list[Event]:
    """A job's events after `after_id`, oldest first, at most `limit`."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after_id)
    return list(session.scalars(query.order_by(Event.id).limit(limit)))


def pauses(session: Session, job_id: str) -> list[Event]:
    """The events that paused a job, oldest first."""
    query = select(Event).where(Event.job_id == job_id, Event.type == STATE).order_by(Event.id)
    return [event for event in session.scalars(query) if event.data.get("state") == State.PAUSED]


def is_final(event: Event) -> bool:
    """Whether nothing comes after this event."""
    return event.type == STATE and event.data.get("state") in FINISHED


def final(session: Session, job_id: str) -> Event | None:
    """The event that ended a job; None while it goes on."""
    query = select(Event).where(Event.job_id == job_id, Event.type == STATE)
    newest = session.scalars(query.order_by(Event.id.desc()).limit(1)).first()
    return newest if newest is not None and is_final(newest) else None
