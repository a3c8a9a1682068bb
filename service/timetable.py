"""Schedules: the same job again and again, by cron. Each run is an ordinary job.

A slot is claimed by the insert of its row: `UNIQUE(schedule_id, slot_utc)`, so any number of clocks
may tick. The job is submitted after that under a key made of the slot, so a process that dies in
between leaves a claimed slot that the next tick submits, once.
"""

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator, model_validator
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service import cron, jobs, preflight
from service.ids import make_id
from service.problems import Fault, Problem, bad_input, conflict, not_found
from service.shared import StorageAwayError, StorageError
from service.site import Site
from service.spec import BuildJob, JobSpec, RecipeJob, job_spec
from service.tables import FINISHED, Job, Run, RunState, Schedule, utc

LATE = timedelta(minutes=2)
"""A slot that no clock saw for so long was missed: nobody was up."""
MOST_MISSED = 100
"""So many missed slots are remembered and, with `missed: all`, made up for."""
MOST_WAITING = 100
"""With `overlap: queue`, so many runs wait at most; the next are skipped."""
SHOWN = 5

Overlap = Literal["skip", "queue"]
Missed = Literal["skip", "one", "all"]


class ScheduleSpec(Frozen):
    """A job, and when it is to run."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    cron: str
    """minute hour day-of-month month day-of-week."""
    time_zone: str = "UTC"
    """A name of the time zone database, such as Europe/Berlin."""
    job: JobSpec
    """Names in it are looked up anew at each run: `name` is then the newest version."""
    overlap: Overlap = "skip"
    """What happens to a slot while the run before it still goes on."""
    missed: Missed = "skip"
    """What happens to slots that passed while nobody was up: nothing, one run for all, or each."""
    incremental: bool = False
    """Builds take only seeds that earlier versions of their dataset didn't."""

    @field_validator("cron")
    @classmethod
    def _comes(cls, value: str) -> str:
        cron.check_cron(value)
        return " ".join(value.split())

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return cron.check_zone(value).key

    @model_validator(mode="after")
    def _runs_can_be_made_up_for(self) -> "ScheduleSpec":
        if self.missed == "all" and self.overlap == "skip":
            raise ValueError("missed: all needs overlap: queue, for those runs come all at once")
        return self


def create(site: Site, spec: ScheduleSpec, at: datetime, *, by: str | None = None) -> Schedule:
    """Store a schedule; its first slot is the first after `at`. The job is checked as `submit`
    would. The limits of the API key `by` hold for its runs. Raises 422 for a job that can't run,
    409 for a name that is taken."""
    preflight.check(site, _job(spec.job, spec.incremental))
    schedule = Schedule(
        id=make_id("sched"),
        **spec.model_dump(mode="json", exclude={"job"}),
        spec=spec.job.model_dump(mode="json"),
        next_at=_next(spec.cron, spec.time_zone, at),
        created_at=at,
        key_id=by,
    )
    try:
        with site.sessions.writing.begin() as session:
            session.add(schedule)
    except IntegrityError as error:
        detail = f"There is a schedule {spec.name!r} already; delete it or take another name."
        raise conflict("The name is taken", detail) from error
    return schedule


def submitted_by(site: Site, reference: str) -> JobSpec:
    """What a schedule submits. Raises a 404 problem."""
    with site.sessions.reading() as session:
        return job_spec.validate_python(get(session, reference).spec)


def get(session: Session, reference: str) -> Schedule:
    """A schedule by id or name. Raises a 404 problem."""
    found = session.get(Schedule, reference)
    if found is None:
        found = session.scalars(select(Schedule).where(Schedule.name == reference)).first()
    if found is None:
        raise not_found("schedule", reference, list(session.scalars(select(Schedule.name))))
    return found


def listing(session: Session, before: str | None, limit: int) -> list[Schedule]:
    """Schedules, newest first."""
    query = select(Schedule).order_by(Schedule.id.desc()).limit(limit)
    return list(session.scalars(query.where(Schedule.id < before) if before else query))


def runs(
    session: Session,
    schedule_id: str,
    state: RunState | None = None,
    before: int | None = None,
    limit: int = 20,
) -> list[Run]:
    """A schedule's runs, newest first."""
    query = select(Run).where(Run.schedule_id == schedule_id).order_by(Run.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Run.state == state)
    return list(session.scalars(query.where(Run.id < before) if before else query))


def coming(schedule: Schedule, at: datetime) -> list[datetime]:
    """The next five slots; none while it is paused."""
    if schedule.paused:
        return []
    return cron.coming(schedule.cron, ZoneInfo(schedule.time_zone), at, SHOWN)


def run_now(site: Site, reference: str, at: datetime) -> Run:
    """Run once besides the slots. With `overlap: skip` a run that goes on makes this a 409 problem;
    with `queue` the new one waits for it."""
    with site.sessions.writing.begin() as session:
        schedule = get(session, reference)
        busy = _busy(session, schedule.id)
        if busy is not None and schedule.overlap == "skip":
            detail = f"{busy} goes on; wait for its end, or create the schedule with overlap: queue"
            raise conflict("A run goes on", detail)
        run = Run(schedule_id=schedule.id, slot_utc=at, state=RunState.WAITING, by_hand=True)
        session.add(run)
        session.flush()
    _start(site, schedule.id, by_hand=True)
    with site.sessions.reading() as session:
        return session.get_one(Run, run.id)


def pause(site: Site, reference: str) -> Schedule:
    """No slot is due, and no waiting run starts, until it is resumed."""
    with site.sessions.writing.begin() as session:
        schedule = get(session, reference)
        schedule.paused = True
        return schedule


def resume(site: Site, reference: str, at: datetime) -> Schedule:
    """Go on with the first slot after `at`: those of the pause were not missed, they were off."""
    with site.sessions.writing.begin() as session:
        schedule = get(session, reference)
        if schedule.paused:
            schedule.paused = False
            schedule.next_at = _next(schedule.cron, schedule.time_zone, at)
        return schedule


def remove(site: Site, reference: str) -> None:
    """Forget a schedule and its runs; the jobs that it made stay."""
    with site.sessions.writing.begin() as session:
        schedule = get(session, reference)
        session.execute(delete(Run).where(Run.schedule_id == schedule.id))
        session.delete(schedule)


def schedule_of(session: Session, job_id: str) -> str | None:
    """The schedule that made a job."""
    return session.scalar(select(Run.schedule_id).where(Run.job_id == job_id))


def tick(site: Site, at: datetime) -> int:
    """Claim what is due at `at` and submit what may start. How many jobs were submitted."""
    with site.sessions.reading() as session:
        on = Schedule.paused.is_(False)
        due = set(session.scalars(select(Schedule.id).where(on, Schedule.next_at <= at)))
        waiting = select(Run.schedule_id).join(Schedule).where(on, Run.state == RunState.WAITING)
        ready = set(session.scalars(waiting.distinct()))
    for schedule_id in sorted(due):
        if _claim(site, schedule_id, at):
            ready.add(schedule_id)
    return sum(_start(site, schedule_id) for schedule_id in sorted(ready))


def _claim(site: Site, schedule_id: str, at: datetime) -> bool:
    """Write down the slots that are due. False if another clock did."""
    try:
        with site.sessions.writing.begin() as session:
            schedule = session.get(Schedule, schedule_id, with_for_update=True)
            if schedule is None or schedule.paused or utc(schedule.next_at) > at:
                return False
            session.add_all(_due(session, schedule, at))
            schedule.next_at = _next(schedule.cron, schedule.time_zone, at)
    except IntegrityError:
        return False
    return True


def _due(session: Session, schedule: Schedule, at: datetime) -> list[Run]:
    """A row for each slot from `next_at` to `at`, with what is to become of it."""
    first = utc(schedule.next_at) - timedelta(seconds=1)
    zone = ZoneInfo(schedule.time_zone)
    found = cron.newest(schedule.cron, zone, first, at, MOST_MISSED)
    late = [slot for slot in found if at - slot > LATE]
    waiting = session.scalar(
        select(func.count()).where(Run.schedule_id == schedule.id, Run.state == RunState.WAITING)
    )
    room = MOST_WAITING - (waiting or 0)
    busy = _busy(session, schedule.id)
    rows: list[Run] = []
    for slot in found:
        why = None
        if slot in late and not _made_up(schedule, slot, found[-1]):
            why = "nobody was up at that time"
        elif busy is not None and schedule.overlap == "skip":
            why = f"{busy} was still going on"
        elif room <= 0:
            why = f"{MOST_WAITING} runs wait already"
        state = RunState.WAITING if why is None else RunState.SKIPPED
        rows.append(Run(schedule_id=schedule.id, slot_utc=slot, state=state, detail=why))
        if why is None:
            room -= 1
            busy = f"the run of {slot:%Y-%m-%d %H:%M} UTC"
    return rows


def _made_up(schedule: Schedule, slot: datetime, newest: datetime) -> bool:
    """Whether a missed slot runs all the same."""
    return schedule.missed == "all" or (schedule.missed == "one" and slot == newest)


def _busy(session: Session, schedule_id: str) -> str | None:
    """The run that goes on or waits, in words."""
    mine = select(Run).where(Run.schedule_id == schedule_id)
    open_job = mine.join(Job, Job.id == Run.job_id).where(Job.state.not_in(FINISHED))
    run = session.scalars(open_job.limit(1)).first()
    if run is None:
        run = session.scalars(mine.where(Run.state == RunState.WAITING).limit(1)).first()
    return None if run is None else (run.job_id or f"the run of {utc(run.slot_utc):%H:%M} UTC")


def _start(site: Site, schedule_id: str, *, by_hand: bool = False) -> int:
    """Submit the oldest waiting run unless one goes on. A run by hand starts while paused too."""
    with site.sessions.reading() as session:
        schedule = session.get(Schedule, schedule_id)
        if schedule is None or (schedule.paused and not by_hand):
            return 0
        query = select(Run).where(Run.schedule_id == schedule_id)
        going = query.join(Job, Job.id == Run.job_id).where(Job.state.not_in(FINISHED))
        waiting = query.where(Run.state == RunState.WAITING).order_by(Run.slot_utc, Run.id)
        run = session.scalars(waiting.limit(1)).first()
        if run is None or session.scalars(going.limit(1)).first() is not None:
            return 0
    try:
        spec = _job(job_spec.validate_python(schedule.spec), schedule.incremental)
        key = f"schedule/{schedule_id}/{utc(run.slot_utc).isoformat()}"
        job = jobs.submit(site, spec, idempotency_key=key, by=schedule.key_id)
    except Problem as problem:
        _note(site, run.id, {"state": RunState.FAILED, "detail": problem.detail})
        return 0
    except StorageAwayError:
        return 0  # A later tick submits it.
    except StorageError as error:
        _note(site, run.id, {"state": RunState.FAILED, "detail": str(error)})
        return 0
    _note(site, run.id, {"state": RunState.SUBMITTED, "job_id": job.id})
    return 1


def _note(site: Site, run_id: int, values: dict[str, object]) -> None:
    with site.sessions.writing.begin() as session:
        session.execute(update(Run).where(Run.id == run_id).values(**values))


def _job(spec: JobSpec, incremental: bool) -> JobSpec:
    """The job that a run submits. Raises a 422 problem for one that can't be incremental."""
    if not incremental:
        return spec
    if not isinstance(spec, BuildJob | RecipeJob) or spec.build is None:
        raise bad_input([Fault("incremental", "this job builds no dataset: leave it out")])
    build = spec.build.model_dump(mode="json") | {"incremental": True}
    try:
        return job_spec.validate_python(spec.model_dump(mode="json") | {"build": build})
    except ValidationError as error:
        message = f"{spec.build.kind} builds can't be incremental: {error.errors()[0]['msg']}"
        raise bad_input([Fault("incremental", message)]) from error


def _next(expression: str, zone: str, at: datetime) -> datetime:
    return next(cron.slots(expression, ZoneInfo(zone), at))
