"""Schedules: create, list, show, run now, pause, resume, delete."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from service import access, timetable
from service.pages import cut
from service.routes.deps import PROBLEMS, TheCaller, TheSite
from service.routes.examples import SCHEDULES
from service.tables import RunState, now
from service.timetable import ScheduleSpec
from service.views import (
    RunPage,
    RunView,
    ScheduleDetail,
    SchedulePage,
    ScheduleView,
    run_view,
    schedule_detail,
    schedule_view,
)

router = APIRouter(prefix="/schedules", tags=["schedules"], responses=PROBLEMS)


@router.post("", status_code=201)
def create_schedule(
    site: TheSite,
    caller: TheCaller,
    spec: Annotated[ScheduleSpec, Body(openapi_examples=SCHEDULES)],
) -> ScheduleView:
    """Submit a job again and again, by cron. The job is checked now as it would be at a run."""
    caller.require(access.required_for(spec.job))
    schedule = timetable.create(site, spec, now(), by=caller.key_id)
    return schedule_view(schedule, timetable.coming(schedule, now()))


@router.get("")
def list_schedules(
    site: TheSite,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> SchedulePage:
    """Schedules, newest first, each with its next five slots."""
    with site.sessions.reading() as session:
        found = timetable.listing(session, cursor, limit + 1)
    page, more = cut(found, limit, lambda schedule: schedule.id)
    shown = [schedule_view(each, timetable.coming(each, now())) for each in page]
    return SchedulePage(schedules=shown, next=more)


@router.get("/{reference}")
def show_schedule(site: TheSite, reference: str) -> ScheduleDetail:
    """A schedule, by id or name, with its next five slots and its newest runs."""
    with site.sessions.reading() as session:
        schedule = timetable.get(session, reference)
        runs = timetable.runs(session, schedule.id)
    return schedule_detail(schedule, timetable.coming(schedule, now()), runs)


@router.get("/{reference}/runs")
def list_runs(
    site: TheSite,
    reference: str,
    state: RunState | None = None,
    cursor: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> RunPage:
    """What became of a schedule's slots, newest first."""
    with site.sessions.reading() as session:
        schedule = timetable.get(session, reference)
        found = timetable.runs(session, schedule.id, state, cursor, limit + 1)
    page, more = cut(found, limit, lambda run: str(run.id))
    return RunPage(runs=[run_view(run) for run in page], next=more)


@router.post("/{reference}/run", status_code=202)
def run_schedule(site: TheSite, caller: TheCaller, reference: str) -> RunView:
    """Run once now, besides the slots. Needs the scope that submitting its job needs."""
    caller.require(access.required_for(timetable.submitted_by(site, reference)))
    return run_view(timetable.run_now(site, reference, now()))


@router.post("/{reference}/pause")
def pause_schedule(site: TheSite, reference: str) -> ScheduleView:
    """Nothing is due until it is resumed."""
    return schedule_view(timetable.pause(site, reference), [])


@router.post("/{reference}/resume")
def resume_schedule(site: TheSite, caller: TheCaller, reference: str) -> ScheduleView:
    """Go on with the next slot; those of the pause are not made up for. Needs the scope that
    submitting its job needs."""
    caller.require(access.required_for(timetable.submitted_by(site, reference)))
    schedule = timetable.resume(site, reference, now())
    return schedule_view(schedule, timetable.coming(schedule, now()))


@router.delete("/{reference}", status_code=204)
def delete_schedule(site: TheSite, reference: str) -> None:
    """Forget a schedule and its runs; the jobs that it made stay."""
    timetable.remove(site, reference)
