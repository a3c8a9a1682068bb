"""Schedules: what runs again and again, when next, and what became of it."""

from typing import Annotated, Any

import yaml
from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import access, errors, jobs, timetable
from service.dashboard.newjob import parsed
from service.dashboard.page import page, page_router, require, see
from service.pages import cut
from service.problems import Problem, bad_input
from service.routes.deps import TheSite
from service.site import Site
from service.tables import Run, Schedule, now
from service.timetable import ScheduleSpec
from service.views import run_view, schedule_view

router = page_router()

PAGE = 50
RUNS = 5
MOST_ID = 2**31 - 1
Text = Annotated[str, Form(max_length=200)]


@router.get("/schedules")
def list_schedules(
    request: Request, site: TheSite, cursor: str | None = None, job: str | None = None
) -> HTMLResponse:
    """All schedules, and a form for another; `job` is one to run again."""
    given = {"yaml": _spec_of(site, job)} if job is not None else {}
    return _page(request, site, given, None, 200, cursor)


@router.get("/schedules/{reference}")
def show_schedule(
    request: Request,
    site: TheSite,
    reference: str,
    cursor: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
) -> HTMLResponse:
    """One schedule, and what became of all its slots."""
    with site.sessions.reading() as session:
        schedule = timetable.get(session, reference)
        found = timetable.runs(session, schedule.id, before=cursor, limit=PAGE + 1)
    runs, more = cut(found, PAGE, lambda run: run.id)
    return page(
        request,
        "schedule.html",
        shown=[_shown(schedule, [])],
        runs=[run_view(run) for run in runs],
        more=more,
        cursor=cursor,
    )


@router.post("/schedules")
def create(
    request: Request,
    site: TheSite,
    name: Text = "",
    cron: Text = "",
    time_zone: Text = "UTC",
    overlap: Text = "skip",
    missed: Text = "skip",
    incremental: Text = "",
    text: Annotated[str, Form(alias="yaml", max_length=1_000_000)] = "",
) -> Response:
    """Make one; what is wrong comes back beside the form."""
    given = {
        "name": name,
        "cron": cron,
        "time_zone": time_zone,
        "overlap": overlap,
        "missed": missed,
        "incremental": incremental,
    }
    try:
        job = parsed(text)
        require(request, access.required_for(job))
        fields = given | {"incremental": incremental == "on", "job": job}
        wanted = ScheduleSpec.model_validate(fields)
        timetable.create(site, wanted, now(), by=request.state.caller.key_id)
    except ValidationError as error:
        wrong = bad_input(list(errors.faults(error.errors(), None)), "It can't be scheduled")
        return _page(request, site, given | {"yaml": text}, wrong, 422)
    except Problem as problem:
        return _page(request, site, given | {"yaml": text}, problem, problem.status)
    return see("/schedules")


@router.post("/schedules/{reference}/run")
def run(request: Request, site: TheSite, reference: str) -> Response:
    """Run once now."""
    require(request, access.required_for(timetable.submitted_by(site, reference)))
    timetable.run_now(site, reference, now())
    return see("/schedules")


@router.post("/schedules/{reference}/pause")
def pause(site: TheSite, reference: str) -> Response:
    """Nothing is due for now."""
    timetable.pause(site, reference)
    return see("/schedules")


@router.post("/schedules/{reference}/resume")
def resume(request: Request, site: TheSite, reference: str) -> Response:
    """Go on with the next slot."""
    require(request, access.required_for(timetable.submitted_by(site, reference)))
    timetable.resume(site, reference, now())
    return see("/schedules")


@router.post("/schedules/{reference}/delete")
def delete(site: TheSite, reference: str) -> Response:
    """Forget one; its jobs stay."""
    timetable.remove(site, reference)
    return see("/schedules")


def _spec_of(site: Site, job_id: str) -> str:
    with site.sessions.reading() as session:
        spec = jobs.get(session, job_id).spec
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)


def _shown(schedule: Schedule, runs: list[Run]) -> dict[str, Any]:
    """A row of the table."""
    return {
        "schedule": schedule_view(schedule, timetable.coming(schedule, now())),
        "runs": [run_view(run) for run in runs],
    }


def _page(
    request: Request,
    site: Site,
    given: dict[str, str],
    problem: Problem | None,
    status: int,
    cursor: str | None = None,
) -> HTMLResponse:
    with site.sessions.reading() as session:
        found = timetable.listing(session, cursor, PAGE + 1)
        schedules, more = cut(found, PAGE, lambda schedule: schedule.id)
        ran = [(each, timetable.runs(session, each.id, limit=RUNS)) for each in schedules]
    return page(
        request,
        "schedules.html",
        status,
        shown=[_shown(each, runs) for each, runs in ran],
        more=more,
        cursor=cursor,
        given=given,
        problem=problem,
    )
