"""Jobs: list, one job live, its training curve, its controls."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from sqlalchemy import select

from service import access, again, ancestry, events, job_logs, jobs, pausing, timetable
from service.again import Retry
from service.dashboard import compression, training, words
from service.dashboard.page import page, page_router, require, see
from service.pages import cut
from service.routes.deps import TheSite
from service.site import Site
from service.spec import CompressJob, JobSpec, RecipeJob, ReportJob, TrainJob
from service.tables import FINISHED, Event, Job, State
from service.views import JobDetail, event_view, job_detail, job_view
from trainer.spec import EvalSpec

router = page_router()

PAGE = 50
EVENTS_SHOWN = 200
MEASURED = 200
"""Newest stages and accuracies that are drawn."""
LOG_BYTES = 1 << 16
"""Of each log: its end, on a page."""
POLL_S = 0.5
KINDS = ("recipe", "build", "batch", "train", "compress", "serve", "report")
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Tells a proxy in front to pass each message on as it comes."""
MOVING = ("progress", "step")
"""Types of events that only move figures."""
LEFT_OUT = (*MOVING, "samples")
"""Types of events that the log doesn't hold: they stand elsewhere."""


@router.get("/jobs")
def list_jobs(
    request: Request,
    site: TheSite,
    state: str = "",
    kind: str = "",
    cursor: str | None = None,
) -> HTMLResponse:
    """Jobs, newest first, with filters."""
    wanted = State(state) if state in set(State) else None
    with site.sessions.reading() as session:
        found = jobs.listing(
            session, state=wanted, kind=kind or None, before=cursor, limit=PAGE + 1
        )
    shown, more = cut(found, PAGE, lambda job: job.id)
    return page(
        request,
        "jobs.html",
        jobs=[job_view(job) for job in shown],
        more=more,
        state=state,
        kind=kind,
        states=list(State),
        kinds=KINDS,
        cursor=cursor,
    )


@router.get("/jobs/{job_id}")
def show_job(request: Request, site: TheSite, job_id: str) -> HTMLResponse:
    """One job."""
    return page(request, "job.html", **_seen(site, job_id))


@router.get("/jobs/{job_id}/live")
def show_live(request: Request, site: TheSite, job_id: str) -> HTMLResponse:
    """The part of it that moves."""
    return page(request, "job_live.html", **_seen(site, job_id))


@router.get("/jobs/{job_id}/stream")
async def stream(
    site: TheSite, job_id: str, after: Annotated[int, Query(ge=0)] = 0
) -> StreamingResponse:
    """A line of server-sent events whenever something happened to a job or its parts."""
    await asyncio.to_thread(_news, site, job_id)
    news = _ring(site, job_id, after)
    return StreamingResponse(news, media_type="text/event-stream", headers=UNBUFFERED)


@router.get("/jobs/{job_id}/curve")
def show_curve(site: TheSite, job_id: str) -> JSONResponse:
    """A training's curves: its loss, the loss's terms, what else a step tells."""
    with site.sessions.reading() as session:
        query = select(Event.type, Event.data).where(
            Event.job_id == job_id, Event.type.in_(["step", "validation"])
        )
        told = [(kind, data) for kind, data in session.execute(query.order_by(Event.id))]
    return JSONResponse(training.curves(told))


@router.get("/jobs/{job_id}/log")
def show_log(request: Request, site: TheSite, job_id: str) -> HTMLResponse:
    """What its processes wrote."""
    return page(request, "log.html", **_written(site, job_id))


@router.get("/jobs/{job_id}/log/live")
def show_log_live(request: Request, site: TheSite, job_id: str) -> HTMLResponse:
    """The part of it that grows."""
    return page(request, "log_live.html", **_written(site, job_id))


@router.get("/jobs/{job_id}/samples")
def show_samples(
    request: Request, site: TheSite, job_id: str, step: int | None = None
) -> HTMLResponse:
    """What a student answered at a measurement, beside the dataset's answers."""
    with site.sessions.reading() as session:
        job = job_view(jobs.get(session, job_id))
        found = training.samples(session, job_id, step)
    shown = training.beside(site, job_id, found)
    return page(request, "samples.html", job=job, samples=shown)


@router.post("/jobs/{job_id}/cancel")
def cancel(site: TheSite, job_id: str) -> Response:
    """Ask a job to stop."""
    jobs.cancel(site, job_id)
    return see(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/pause")
def pause(site: TheSite, job_id: str) -> Response:
    """Let a job rest; what it paid for is kept."""
    pausing.pause(site, job_id)
    return see(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/resume")
def resume(request: Request, site: TheSite, job_id: str) -> Response:
    """Let a paused job go on."""
    require(request, access.required_for(jobs.submitted(site, job_id)))
    pausing.resume(site, job_id)
    return see(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/retry")
def retry(request: Request, site: TheSite, job_id: str) -> Response:
    """Ask the rows that a build rejected once more, as a build of their own."""
    spec = again.retry_spec(site, job_id, Retry())
    require(request, access.required_for(spec))
    return see(f"/jobs/{jobs.submit(site, spec, by=request.state.caller.key_id).id}")


@router.post("/jobs/{job_id}/report")
def report(request: Request, site: TheSite, job_id: str) -> Response:
    """Draw the report of a training or a compression, and of what it started from. Where the job
    was measured, so are the two ends of the report's table."""
    measured = _measured(jobs.submitted(site, job_id))
    spec = ReportJob(kind="report", job=job_id, evaluate=measured)
    require(request, access.required_for(spec))
    return see(f"/jobs/{jobs.submit(site, spec, by=request.state.caller.key_id).id}")


def _measured(spec: JobSpec) -> EvalSpec | None:
    if isinstance(spec, CompressJob):
        return spec.compress.evaluate
    return spec.evaluate if isinstance(spec, TrainJob | RecipeJob) else None


def _written(site: Site, job_id: str) -> dict[str, Any]:
    with site.sessions.reading() as session:
        job = job_view(jobs.get(session, job_id))
    found = job_logs.read(site, job_id, LOG_BYTES)
    sizes = {"shown_bytes": LOG_BYTES, "most_bytes": job_logs.MOST_BYTES}
    return {"job": job, "over": job.state in FINISHED, "logs": found, **sizes}


def _seen(site: Site, job_id: str) -> dict[str, Any]:
    """What the pages of a job show."""
    with site.sessions.reading() as session:
        job = job_detail(jobs.get(session, job_id), jobs.children(session, job_id))
        made_by = timetable.schedule_of(session, job_id)
        schedule = timetable.get(session, made_by) if made_by is not None else None
        family = [job_id, *(child.id for child in job.children)]
        newest = select(Event).where(Event.job_id.in_(family)).order_by(Event.id.desc())
        log = session.scalars(newest.where(Event.type.not_in(LEFT_OUT)).limit(EVENTS_SHOWN)).all()
        figures = session.scalars(newest.where(Event.type.in_(MOVING)).limit(1)).first()
        last_id = session.scalar(newest.with_only_columns(Event.id).limit(1)) or 0
        told = session.scalars(
            newest.where(Event.type.in_(["stage", "accuracy"])).limit(MEASURED)
        ).all()
        trains = [one.id for one in (job, *job.children) if one.kind == "train"]
        trainings = [training.look(session, id) for id in trains]
        drawn = job.result.get("report") or ancestry.report_of(session, [job_id])
    trainings = [
        replace(one, samples=training.beside(site, one.id, one.samples)) for one in trainings
    ]
    stages = compression.stages(told)
    return {
        "job": job,
        "over": job.state in FINISHED,
        "schedule": schedule,
        "left_s": _left(job),
        "took_s": _took(job),
        "figures": dict(figures.data) if figures is not None and job.state == "running" else {},
        "log": [_line(event, job) for event in reversed(log)],
        "last_id": last_id,
        "may_pause": job.kind in pausing.PAUSABLE and job.state in ("queued", "running"),
        "may_retry": bool(
            job.kind == "build" and job.result.get("dataset") and job.progress.get("rejected")
        ),
        "report": drawn,
        "may_report": drawn is None
        and job.kind in ("train", "compress")
        and bool(job.result.get("model")),
        "may_resume": "paused" in (job.state, *(child.state for child in job.children)),
        "trainings": trainings,
        "stages": stages,
        "charts": compression.charts(stages),
        "accuracies": [event.data for event in told if event.type == "accuracy"],
    }


def _left(job: JobDetail) -> float | None:
    if job.state != State.RUNNING:
        return None
    return words.remaining_s(job.progress, job.started_at, job.paused_s)


def _took(job: JobDetail) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return max(0.0, (job.finished_at - job.started_at).total_seconds() - job.paused_s)


def _line(event: Event, job: JobDetail) -> dict[str, Any]:
    part = next((one.part for one in job.children if one.id == event.job_id), None)
    return {
        "at": event_view(event).at,
        "part": part or "",
        "type": event.type.replace("_", " "),
        "words": words.event_words(event.type, event.data),
        "bad": event.type in ("crash", "error", "disk_full", "storage_away")
        or event.data.get("state") == State.FAILED,
    }


async def _ring(site: Site, job_id: str, after: int) -> AsyncIterator[str]:
    seen = after
    while True:
        newest, over = await asyncio.to_thread(_news, site, job_id)
        if newest > seen or over:
            seen = newest
            yield f"id: {newest}\ndata: {'over' if over else 'more'}\n\n"
        if over:
            return
        await asyncio.sleep(POLL_S)


def _news(site: Site, job_id: str) -> tuple[int, bool]:
    """Id of the family's newest event, and whether the job has ended."""
    with site.sessions.reading() as session:
        jobs.get(session, job_id)
        family = select(Job.id).where((Job.id == job_id) | (Job.parent_id == job_id))
        query = select(Event.id).where(Event.job_id.in_(family)).order_by(Event.id.desc())
        newest = session.scalar(query.limit(1)) or 0
        return newest, events.final(session, job_id) is not None
