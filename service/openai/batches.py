"""/v1/batches: chat completions against registered teachers, by the file."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service import jobs
from service.batches import URL
from service.openai.errors import ERRORS
from service.openai.objects import BATCH, Limit, Object, inside, listed, outside, seconds
from service.problems import conflict, not_found
from service.routes.deps import TheCaller, TheSite
from service.site import Site
from service.spec import BatchJob
from service.tables import FINISHED, Event, Job, State

router = APIRouter(prefix="/batches", tags=["batches"], responses=ERRORS)

HOUR_S = 3600
EXAMPLES: dict[str, Any] = {
    "batch": {
        "value": {
            "input_file_id": "file-2m556dr78jbs",
            "endpoint": URL,
            "completion_window": "24h",
        }
    }
}


class BatchRequest(Frozen):
    """A batch as OpenAI's clients ask for it."""

    input_file_id: str = Field(min_length=1)
    endpoint: Literal["/v1/chat/completions"]
    completion_window: str = Field(pattern=r"^[1-9][0-9]{0,3}h$")
    """Hours, such as 24h."""
    metadata: dict[str, str] | None = Field(None, max_length=16)


@router.post("")
def create_batch(
    site: TheSite,
    caller: TheCaller,
    wanted: Annotated[BatchRequest, Body(openapi_examples=EXAMPLES)],
) -> Object:
    """Queue a batch. Its file is checked line by line when it starts: see `errors` then."""
    spec = BatchJob(
        kind="batch",
        input=wanted.input_file_id,
        window_s=int(wanted.completion_window.removesuffix("h")) * HOUR_S,
        metadata=wanted.metadata or {},
    )
    return _shown(site, jobs.submit(site, spec, by=caller.key_id))


@router.get("")
def list_batches(site: TheSite, after: str | None = None, limit: Limit = 20) -> Object:
    """Batches, newest first."""
    before = inside(after, BATCH) if after is not None else None
    with site.sessions.reading() as session:
        found = jobs.listing(session, kind="batch", before=before, limit=limit + 1)
        asked = _stops(session, found)
    return listed([batch_object(job, asked.get(job.id)) for job in found], limit)


@router.get("/{batch_id}")
def show_batch(site: TheSite, batch_id: str) -> Object:
    """A batch: its status, counts and files."""
    return _shown(site, _batch(site, batch_id))


@router.post("/{batch_id}/cancel")
def cancel_batch(site: TheSite, batch_id: str) -> Object:
    """Stop a batch; what was answered until then is in its output file."""
    job = _batch(site, batch_id)
    if job.state in FINISHED:
        raise conflict("The batch has ended", f"{batch_id} is {_status(job)} already.")
    return _shown(site, jobs.cancel(site, job.id))


def batch_object(job: Job, asked_at: datetime | None) -> Object:
    """A batch job in OpenAI's form; `asked_at` is when a running one was told to stop."""
    spec, progress, result = job.spec, job.progress, job.result
    status, ended, created = _status(job), seconds(job.finished_at), seconds(job.created_at)
    errors = result.get("errors")
    # One that had not begun ended when it was told to.
    stopping = seconds(asked_at) or (ended if status == "cancelled" else None)
    return {
        "id": outside(job.id, BATCH),
        "object": "batch",
        "endpoint": URL,
        "errors": {"object": "list", "data": errors} if errors else _errors(job),
        "input_file_id": spec["input"],
        "completion_window": f"{spec['window_s'] // HOUR_S}h",
        "status": status,
        "output_file_id": result.get("output_file"),
        "error_file_id": result.get("error_file"),
        "created_at": created,
        "in_progress_at": progress.get("in_progress_at"),
        "expires_at": (created or 0) + spec["window_s"],
        "finalizing_at": progress.get("finalizing_at"),
        "completed_at": ended if status == "completed" else None,
        "failed_at": ended if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": stopping if status in ("cancelling", "cancelled") else None,
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": {
            name: result.get(name, progress.get(name, 0))
            for name in ("total", "completed", "failed")
        },
        "metadata": spec["metadata"] or None,
    }


def _status(job: Job) -> str:
    match job.state:
        case State.SUCCEEDED:
            return "expired" if job.reason == "expired" else "completed"
        case State.FAILED | State.CANCELLED:
            return job.state
    if job.cancel_requested:
        return "cancelling"
    return str(job.progress.get("phase") or "validating")


def _errors(job: Job) -> Object | None:
    if job.state != State.FAILED:
        return None
    fault = {"code": job.reason, "message": job.detail, "param": None, "line": None}
    return {"object": "list", "data": [fault]}


def _shown(site: Site, job: Job) -> Object:
    with site.sessions.reading() as session:
        return batch_object(job, _stops(session, [job]).get(job.id))


def _stops(session: Session, found: Sequence[Job]) -> dict[str, datetime]:
    """When those that were told to stop while they ran were told so, by job."""
    told = [job.id for job in found if job.cancel_requested]
    query = select(Event).where(Event.job_id.in_(told), Event.type == "cancel_requested")
    return {event.job_id: event.at for event in session.scalars(query)}


def _batch(site: Site, batch_id: str) -> Job:
    with site.sessions.reading() as session:
        job = session.get(Job, inside(batch_id, BATCH))
    if job is None or job.kind != "batch" or not batch_id.startswith(BATCH):
        raise not_found("batch", batch_id, [])
    return job
