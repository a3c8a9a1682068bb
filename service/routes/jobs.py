"""Jobs: submit, list, show, cancel, follow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Response
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service import access, again, ancestry, events, job_logs, jobs, pausing, timetable
from service.addresses import API
from service.again import Clone, Retry
from service.pages import cut
from service.preview import Preview, PreviewRequest, preview
from service.routes.deps import PROBLEMS, TheCaller, TheSite
from service.routes.examples import CLONES, JOBS, PREVIEWS, RETRIES
from service.site import Site
from service.spec import JobSpec
from service.tables import Event, Job, State
from service.views import EventView, JobDetail, JobPage, event_view, job_detail, job_view

router = APIRouter(tags=["jobs"])

POLL_S = 0.5
"""How often a follower's stream looks for new events."""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=150,
        pattern=r"^[^/]+$",
        description="Repeat a request with the same key, and it makes the job once.",
    ),
]


@router.post("/jobs", status_code=202, responses=PROBLEMS)
def submit_job(
    site: TheSite,
    caller: TheCaller,
    spec: Annotated[JobSpec, Body(openapi_examples=JOBS)],
    response: Response,
    idempotency_key: Key = None,
) -> JobDetail:
    """Check a spec and queue it. What can be checked is checked before anything is spent."""
    caller.require(access.required_for(spec))
    job = jobs.submit(site, spec, idempotency_key=idempotency_key, by=caller.key_id)
    response.headers["Location"] = f"{API}/jobs/{job.id}"
    return job_detail(job, [])


@router.get("/jobs")
def list_jobs(
    site: TheSite,
    state: State | None = None,
    kind: str | None = None,
    parent: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """Jobs, newest first."""
    with site.sessions.reading() as session:
        found = jobs.listing(
            session, state=state, kind=kind, parent=parent, before=cursor, limit=limit + 1
        )
    page, more = cut(found, limit, lambda job: job.id)
    return JobPage(jobs=[job_view(job) for job in page], next=more)


@router.get("/jobs/{job_id}", responses=PROBLEMS)
def show_job(site: TheSite, job_id: str) -> JobDetail:
    """A job with its spec and, for a recipe, its parts."""
    with site.sessions.reading() as session:
        job, children = jobs.get(session, job_id), jobs.children(session, job_id)
        schedule_id = timetable.schedule_of(session, job_id)
        return job_detail(job, children, schedule_id, ancestry.report_of(session, [job_id]))


@router.post("/jobs/{job_id}/cancel", responses=PROBLEMS)
def cancel_job(site: TheSite, job_id: str) -> JobDetail:
    """Stop a job and its parts. A running one ends when its worker has put things in order; one
    that has ended is left as it is."""
    jobs.cancel(site, job_id)
    return show_job(site, job_id)


@router.get("/jobs/{job_id}/log", response_class=PlainTextResponse, responses=PROBLEMS)
def show_log(
    site: TheSite,
    job_id: str,
    tail: Annotated[
        int,
        Query(ge=1, le=job_logs.MOST_BYTES, description="So many bytes of each log's end."),
    ] = 1 << 16,
) -> PlainTextResponse:
    """What the processes of a job and of its parts wrote, as text, secrets blotted out. Empty for
    a job that has none, or whose worker has a data directory of its own on another host."""
    text = job_logs.as_text(job_logs.read(site, job_id, tail))
    return PlainTextResponse(text, headers={"X-Content-Type-Options": "nosniff"})


@router.get("/jobs/{job_id}/pauses", responses=PROBLEMS)
def list_pauses(site: TheSite, job_id: str) -> list[EventView]:
    """The events that paused a job, oldest first; that of a smoke gate holds its rows."""
    with site.sessions.reading() as session:
        jobs.get(session, job_id)
        return [event_view(event) for event in events.pauses(session, job_id)]


@router.post("/jobs/{job_id}/pause", responses=PROBLEMS)
def pause_job(site: TheSite, job_id: str) -> JobDetail:
    """Hold up a build, a training, a compression, or a job that waits in the queue. What is under
    way is still taken in; a training that runs pauses once its checkpoint is written."""
    pausing.pause(site, job_id)
    return show_job(site, job_id)


@router.post("/jobs/{job_id}/resume", responses=PROBLEMS)
def resume_job(site: TheSite, caller: TheCaller, job_id: str) -> JobDetail:
    """Let a paused job go on: past a smoke gate that was not met, with a changed teacher, or from
    its last checkpoint. A pause that is under way is withdrawn. Needs the scope that submitting it
    needs."""
    caller.require(access.required_for(jobs.submitted(site, job_id)))
    pausing.resume(site, job_id)
    return show_job(site, job_id)


@router.post("/jobs/{job_id}/clone", status_code=202, responses=PROBLEMS)
def clone_job(
    site: TheSite,
    caller: TheCaller,
    job_id: str,
    wanted: Annotated[Clone, Body(openapi_examples=CLONES)],
    idempotency_key: Key = None,
) -> JobDetail:
    """Submit a job's spec again, with edits."""
    spec = again.clone_spec(site, job_id, wanted)
    caller.require(access.required_for(spec))
    return job_detail(
        jobs.submit(site, spec, idempotency_key=idempotency_key, by=caller.key_id), []
    )


@router.post("/jobs/{job_id}/retry", status_code=202, responses=PROBLEMS)
def retry_job(
    site: TheSite,
    caller: TheCaller,
    job_id: str,
    wanted: Annotated[Retry, Body(openapi_examples=RETRIES)],
    idempotency_key: Key = None,
) -> JobDetail:
    """Ask the rejected rows of a finished build again, as a build of their own."""
    spec = again.retry_spec(site, job_id, wanted)
    caller.require(access.required_for(spec))
    return job_detail(
        jobs.submit(site, spec, idempotency_key=idempotency_key, by=caller.key_id), []
    )


@router.post("/jobs/preview", responses=PROBLEMS)
def preview_job(
    site: TheSite,
    caller: TheCaller,
    wanted: Annotated[PreviewRequest, Body(openapi_examples=PREVIEWS)],
) -> Preview:
    """Ask a recipe's first rows and judge them, without a job: nothing is stored."""
    caller.require(access.required_for(wanted.spec))
    return preview(site, wanted)


def _existing(site: TheSite, job_id: str) -> Job:
    with site.sessions.reading() as session:
        return jobs.get(session, job_id)


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse, responses=PROBLEMS)
async def follow_job(
    site: TheSite,
    job: Annotated[Job, Depends(_existing)],
    after: Annotated[int, Query(ge=0, description="Replay from behind this event.")] = 0,
    last_event_id: Annotated[int | None, Header(alias="Last-Event-ID", ge=0)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: first those that have been, then those to come, until the job ends."""
    seen = max(after, last_event_id or 0)
    while True:
        fresh = await asyncio.to_thread(_since, site, job.id, seen)
        for event in fresh:
            seen = event.id
            yield ServerSentEvent(id=str(event.id), event=event.type, data=_data(event))
            if events.is_final(event):
                return
        if fresh:
            continue
        if await asyncio.to_thread(_is_over, site, job.id, seen):
            return
        await asyncio.sleep(POLL_S)


def _since(site: Site, job_id: str, after_id: int) -> list[Event]:
    with site.sessions.reading() as session:
        return events.since(session, job_id, after_id)


def _is_over(site: Site, job_id: str, seen: int) -> bool:
    """Whether the final event lies at or before `seen`: the follower has had it already."""
    with site.sessions.reading() as session:
        final = events.final(session, job_id)
    return final is not None and final.id <= seen


def _data(event: Event) -> dict[str, object]:
    return event_view(event).model_dump(mode="json")
