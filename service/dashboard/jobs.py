"""Jobs: list, one job live, its training curve, its controls."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from sqlalchemy import select

from service import access, again, events, jobs, pausing
from service.again import Retry
from service.dashboard import drawing, words
from service.dashboard.page import page, page_router, require, see
from service.routes.deps import TheSite
from service.site import Site
from service.tables import FINISHED, Event, Job, State
from service.views import JobDetail, event_view, job_detail, job_view

router = page_router()

PAGE = 50
EVENTS_SHOWN = 200
CURVE_POINTS = 600
POLL_S = 0.5
KINDS = ("recipe", "build", "train", "compress", "serve", "report")
QUIET = ("progress", "step")
"""Types of events that only move figures: left out of the log."""


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
    more = found[PAGE - 1].id if len(found) > PAGE else None
    return page(
        request,
        "jobs.html",
        jobs=[job_view(job) for job in found[:PAGE]],
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
    return StreamingResponse(_ring(site, job_id, after), media_type="text/event-stream")


@router.get("/jobs/{job_id}/curve")
def show_curve(site: TheSite, job_id: str) -> JSONResponse:
    """A training's curve: steps, training loss, validation loss."""
    with site.sessions.reading() as session:
        query = select(Event.type, Event.data).where(
            Event.job_id == job_id, Event.type.in_(["step", "validation"])
        )
        told = [(kind, data) for kind, data in session.execute(query.order_by(Event.id))]
    return JSONResponse(curve(told))


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
def resume(site: TheSite, job_id: str) -> Response:
    """Let a paused job go on."""
    pausing.resume(site, job_id)
    return see(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/retry")
def retry(request: Request, site: TheSite, job_id: str) -> Response:
    """Ask the rows that a build rejected once more, as a build of their own."""
    spec = again.retry_spec(site, job_id, Retry())
    require(request, access.required_for(spec))
    return see(f"/jobs/{jobs.submit(site, spec).id}")


def curve(told: list[tuple[str, dict[str, Any]]]) -> dict[str, list[float | None]]:
    """Events as columns, thinned to what a screen can show; validations are all kept."""
    rows: dict[int, list[float | None]] = {}
    for kind, data in told:
        step, loss = data.get("step"), data.get("loss")
        if isinstance(step, int) and isinstance(loss, int | float):
            rows.setdefault(step, [None, None])[kind == "validation"] = float(loss)
    steps = sorted(rows)
    every = -(-len(steps) // CURVE_POINTS) or 1
    last = len(steps) - 1
    kept = [
        step
        for number, step in enumerate(steps)
        if number % every == 0 or number == last or rows[step][1] is not None
    ]
    return {
        "step": [float(step) for step in kept],
        "loss": [rows[step][0] for step in kept],
        "validation": [rows[step][1] for step in kept],
    }


def _seen(site: Site, job_id: str) -> dict[str, Any]:
    """What the pages of a job show."""
    with site.sessions.reading() as session:
        job = job_detail(jobs.get(session, job_id), jobs.children(session, job_id))
        family = [job_id, *(child.id for child in job.children)]
        newest = select(Event).where(Event.job_id.in_(family)).order_by(Event.id.desc())
        log = session.scalars(newest.where(Event.type.not_in(QUIET)).limit(EVENTS_SHOWN)).all()
        figures = session.scalars(newest.where(Event.type.in_(QUIET)).limit(1)).first()
        last_id = session.scalar(newest.with_only_columns(Event.id).limit(1)) or 0
        told = session.scalars(newest.where(Event.type.in_(["stage", "accuracy"])).limit(50)).all()
    trains = [one.id for one in (job, *job.children) if one.kind == "train"]
    stages = _stages(told)
    return {
        "job": job,
        "over": job.state in FINISHED,
        "left_s": _left(job, job.started_at),
        "figures": dict(figures.data) if figures is not None and job.state == "running" else {},
        "log": [_line(event, job) for event in reversed(log)],
        "last_id": last_id,
        "may_pause": job.kind in pausing.PAUSABLE and job.state in ("queued", "running"),
        "may_retry": bool(
            job.kind == "build" and job.result.get("dataset") and job.progress.get("rejected")
        ),
        "may_resume": "paused" in (job.state, *(child.state for child in job.children)),
        "trains": trains,
        "stages": stages,
        "chart": drawing.size_chart(_sizes(stages)),
        "accuracies": [event.data for event in told if event.type == "accuracy"],
    }


def _left(job: JobDetail, started_at: datetime | None) -> float | None:
    return words.remaining_s(job.progress, started_at) if job.state == State.RUNNING else None


def _line(event: Event, job: JobDetail) -> dict[str, Any]:
    part = next((one.part for one in job.children if one.id == event.job_id), None)
    return {
        "at": event_view(event).at,
        "part": part or "",
        "type": event.type.replace("_", " "),
        "words": words.event_words(event.type, event.data),
        "bad": event.type in ("crash", "error", "disk_full")
        or event.data.get("state") == State.FAILED,
    }


def _stages(told: Sequence[Event]) -> list[dict[str, Any]]:
    """Reports of the stages, in order, the newest of each."""
    newest: dict[int, dict[str, Any]] = {}
    for event in reversed(told):
        if event.type == "stage" and event.data.get("report"):
            newest[int(event.data.get("index") or 0)] = event.data["report"]
    return [newest[index] for index in sorted(newest)]


def _sizes(stages: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Label, bytes and accuracy of what went in and of what each stage made."""
    ends: list[tuple[str, dict[str, Any]]] = []
    for number, report in enumerate(stages):
        if number == 0:
            ends.append(("start", report.get("before") or {}))
        ends.append((str(report.get("kind")), report.get("after") or {}))
    found = []
    for label, facts in ends:
        if facts.get("shape"):
            accuracy = words.mean_accuracy(facts.get("measurement"))
            if accuracy is not None:
                found.append((label, float(facts["shape"]["weight_bytes"]), accuracy))
    return found


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
