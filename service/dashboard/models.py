"""Models: list, and one with its card, its measurements, its lineage and its report."""

import re
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import access, ancestry, artifacts, jobs
from service.ancestry import Relative
from service.dashboard import drawing, words
from service.dashboard.drawing import Box
from service.dashboard.page import page, page_router, require, see
from service.routes.deps import TheSite
from service.spec import ServeJob
from service.tables import Job, State
from service.views import ArtifactView

router = page_router()

PAGE = 50
REPORTS = 20
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
"""What a teacher's name can't hold."""
PLACES = {"dataset": "/datasets/", "model": "/models/", "report": "/api/v1/reports/"}


@router.get("/models")
def list_models(
    request: Request,
    site: TheSite,
    name: str = "",
    cursor: str | None = None,
    reports: str | None = None,
) -> HTMLResponse:
    """Models, newest first, and reports; `reports` is the cursor of those."""
    found = artifacts.listing(site, "model", name=name or None, before=cursor, limit=PAGE)
    drawn = artifacts.listing(site, "report", name=None, before=reports, limit=REPORTS)
    models = [
        (model, words.mean_accuracy(model.summary.get("measurement"))) for model in found.artifacts
    ]
    return page(
        request,
        "models.html",
        models=models,
        more=found.next,
        reports=drawn.artifacts,
        more_reports=drawn.next,
        reports_cursor=reports,
        name=name,
        cursor=cursor,
    )


@router.get("/models/{reference}")
def show_model(request: Request, site: TheSite, reference: str) -> HTMLResponse:
    """One model."""
    model = artifacts.show(site, "model", reference)
    with site.sessions.reading() as session:
        boxes = {one.id: _box(one) for one in ancestry.family(session, model.id)}
        report = _report(session, model)
        served = _served(session, model.id)
    measured = model.summary.get("measurement") or {}
    return page(
        request,
        "model.html",
        model=model,
        measured=measured,
        accuracy=words.mean_accuracy(measured),
        stage=model.summary.get("stage"),
        facts=_facts(model),
        lineage=drawing.lineage(boxes, model.id),
        report=report,
        served=served,
    )


@router.post("/models/{reference}/serve")
def serve(request: Request, site: TheSite, reference: str) -> Response:
    """Serve it with vLLM under its name and version, for builds and the playground."""
    model = artifacts.show(site, "model", reference)
    name = f"{_NO_NAME.sub('-', model.name).strip('-._')}-v{model.version}"
    spec = ServeJob(kind="serve", model=model.id, name=name.lstrip("-"))
    require(request, access.required_for(spec))
    return see(f"/jobs/{jobs.submit(site, spec, by=request.state.caller.key_id).id}")


def _served(session: Session, model_id: str) -> list[tuple[str, str, str]]:
    """Name as a teacher, job and its state, of all that serve it or are about to."""
    going = (State.QUEUED, State.RUNNING)
    serving = select(Job).where(Job.kind == "serve", Job.state.in_(going))
    return [
        (str(job.spec["name"]), job.id, job.state)
        for job in session.scalars(serving.order_by(Job.id))
        if job.spec.get("model") == model_id
    ]


def _facts(model: ArtifactView) -> list[tuple[str, Any]]:
    told = ("measurement", "stage", "card")
    return [
        (name.replace("_", " "), value)
        for name, value in model.summary.items()
        if name not in told and value not in (None, {}, [])
    ]


def _box(one: Relative) -> Box:
    if one.kind == "outside":
        return Box(one.id, one.kind, one.name, "not made here", None, ())
    place = PLACES.get(one.kind)
    link = f"{place}{one.id}" if place else None
    if one.kind == "report":
        link = f"{link}/report.html"
    note = f"{one.kind} · {words.size(one.bytes)}"
    return Box(one.id, one.kind, f"{one.name} v{one.version}", note, link, one.inputs)


def _report(session: Session, model: ArtifactView) -> str | None:
    """The report that tells of it: of the job that made it, or of that job's recipe."""
    job = session.get(Job, model.job_id) if model.job_id is not None else None
    told = [id for id in (model.job_id, job.parent_id if job is not None else None) if id]
    return ancestry.report_of(session, told)
