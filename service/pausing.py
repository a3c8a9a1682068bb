"""Pausing jobs and letting them go on: a person's wish, or what a worker found.

A paused job holds no lease and no worker. Builds pause at any time: their rows are in the ledger.
Trainings and compressions that run are asked to: they pause when their worker has stopped them at a
checkpoint, or between stages. Of the other kinds only those that wait in the queue do.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from service import events, jobs
from service.problems import conflict
from service.site import Site
from service.tables import Chunk, Job, JobTeacher, State, now

BY_HAND = "paused_by_hand"
TEACHER = "paused_teacher"
"""The teacher does not answer; the job goes on by itself when it does."""
TEACHER_CHANGED = "paused_teacher_changed"
SMOKE = "paused_smoke"
FOR_A_PERSON = (TEACHER_CHANGED, SMOKE)
"""Nobody else lets the job go on."""
PAUSABLE = frozenset({"build", "recipe", "train", "compress"})
WITH_CHECKPOINT = ("train", "compress")
"""Kinds that pause once their worker has put things in order."""


def pause(site: Site, job_id: str) -> Job:
    """Pause a job, or the parts of a recipe. What is under way is still taken in; a training that
    runs is told, and pauses when its checkpoint is written. Raises a 404 problem, or 409 for a job
    that can't be paused."""
    with site.sessions.writing.begin() as session:
        job = jobs.get(session, job_id)
        family = jobs.children(session, job_id) if job.kind == "recipe" else [job]
        paused = [_pause(session, member) or _ask_to_pause(session, member) for member in family]
        if not any(paused) and job.state != State.PAUSED and not job.pause_requested:
            raise conflict("The job can't be paused", _why_not(job))
        session.expire_all()
        return jobs.get(session, job_id)


def resume(site: Site, job_id: str) -> Job:
    """Let a paused job, or the paused parts of a recipe, go on. After `paused_smoke` its gate is
    overruled; after `paused_teacher_changed` the teacher that answers now is the job's. Raises a
    404 problem, or 409 for a job that isn't paused."""
    with site.sessions.writing.begin() as session:
        job = jobs.get(session, job_id)
        family = [*(jobs.children(session, job_id) if job.kind == "recipe" else []), job]
        withdrawn = [_withdraw(session, member.id) for member in family]
        waiting = [member for member in family if member.state == State.PAUSED]
        if not waiting and not any(withdrawn):
            raise conflict("The job isn't paused", f"{job_id} is {job.state}.")
        for member in waiting:
            go_on(session, member)
        bells = [(member.kind, member.id) for member in waiting]
        session.expire_all()
        job = jobs.get(session, job_id)
    for kind, member_id in bells:
        site.broker.ring(kind, member_id)
    return job


def settle(site: Site, job_id: str) -> None:
    """Pause a queued job that was to pause while it ran: its worker ended before it could."""
    with site.sessions.writing.begin() as session:
        if session.get_one(Job, job_id).pause_requested:
            _pause(session, session.get_one(Job, job_id))


def rest(session: Session, lease_epoch: int, job_id: str) -> bool:
    """Pause a running job whose worker, of that epoch, has stopped it as it was asked to. False if
    nobody wants that any more, or the lease is lost; the caller commits."""
    mine = (Job.id == job_id) & (Job.epoch == lease_epoch) & (Job.state == State.RUNNING)
    wanted = mine & Job.pause_requested.is_(True) & Job.cancel_requested.is_(False)
    # It did not fail: the claim doesn't count as an attempt.
    freed = {"owner": None, "attempts": Job.attempts - 1}
    return _set_paused(session, wanted, job_id, BY_HAND, _by_hand(job_id), {}, freed)


def hold(session: Session, job_id: str, reason: str, detail: str, **shown: Any) -> bool:
    """Pause a running build for what its worker found; `shown` goes into the event. False if it
    isn't running any more; the caller commits."""
    running = (Job.id == job_id) & (Job.state == State.RUNNING) & Job.cancel_requested.is_(False)
    return _set_paused(session, running, job_id, reason, detail, shown)


def go_on(session: Session, job: Job) -> bool:
    """Let a paused job run, or queue again if it never began. False if it isn't paused any more;
    the caller commits, then rings."""
    began = bool(session.scalar(select(exists().where(Chunk.job_id == job.id))))
    state = State.RUNNING if began else State.QUEUED
    values: dict[str, Any] = {
        "state": state,
        "reason": None,
        "detail": None,
        "waiting_for": None,
        "paused_at": None,
        "paused_s": Job.paused_s + _since(job.paused_at),
    }
    if job.reason == SMOKE:
        values["smoke"] = "overruled"
    if job.reason == TEACHER_CHANGED:
        session.execute(delete(JobTeacher).where(JobTeacher.job_id == job.id))
    went = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == State.PAUSED)
        .values(**values)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if went is not None:
        events.emit(session, job.id, events.STATE, {"state": state, "after": job.reason})
    return went is not None


def _pause(session: Session, job: Job) -> bool:
    states = [State.QUEUED, State.RUNNING] if job.kind == "build" else [State.QUEUED]
    condition = (Job.id == job.id) & Job.state.in_(states) & Job.cancel_requested.is_(False)
    return _set_paused(session, condition, job.id, BY_HAND, _by_hand(job.id), {})


def _ask_to_pause(session: Session, job: Job) -> bool:
    running = (Job.id == job.id) & (Job.state == State.RUNNING) & Job.kind.in_(WITH_CHECKPOINT)
    fresh = running & Job.cancel_requested.is_(False) & Job.pause_requested.is_(False)
    return _wish(session, fresh, job.id, "pause_requested", True)


def _withdraw(session: Session, job_id: str) -> bool:
    asked = (Job.id == job_id) & Job.pause_requested.is_(True)
    return _wish(session, asked, job_id, "pause_withdrawn", False)


def _wish(session: Session, condition: Any, job_id: str, event: str, wanted: bool) -> bool:
    changed = session.execute(
        update(Job)
        .where(condition)
        .values(pause_requested=wanted)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if changed is not None:
        events.emit(session, job_id, event, {})
    return changed is not None


def _by_hand(job_id: str) -> str:
    return f"Paused by hand. Let it go on with: retort resume {job_id}"


def _set_paused(
    session: Session,
    condition: Any,
    job_id: str,
    reason: str,
    detail: str,
    shown: dict[str, Any],
    also: dict[str, Any] | None = None,
) -> bool:
    """`shown` goes into the event, `also` into the job's row."""
    paused = session.execute(
        update(Job)
        .where(condition)
        .values(
            state=State.PAUSED,
            reason=reason,
            detail=detail,
            waiting_for=None,
            paused_at=now(),
            pause_requested=False,
            **(also or {}),
        )
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if paused is not None:
        data = {"state": State.PAUSED, "reason": reason, "detail": detail} | shown
        events.emit(session, job_id, events.STATE, data)
    return paused is not None


def _since(moment: datetime | None) -> float:
    if moment is None:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (now() - moment).total_seconds())


def _why_not(job: Job) -> str:
    if job.kind in PAUSABLE or job.state == State.QUEUED:
        return f"{job.id} is {job.state}: nothing of it can be held up now."
    return (
        f"{job.kind} {job.id} is {job.state}; of running jobs only builds, trainings and "
        f"compressions can be paused. Cancel it, and submit it again later."
    )
