"""The first page: what runs, what needs a person, how fast it goes."""

from dataclasses import dataclass
from datetime import timedelta

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import jobs, registry
from service.dashboard.page import page, page_router
from service.routes.deps import TheSite
from service.site import Site
from service.tables import Artifact, Event, Job, State, now
from service.views import JobView, TeacherView, job_view, teacher_view

router = page_router()

SHOWN = 20
RECENT = timedelta(days=7)
DAY = timedelta(days=1)
TOPS = select(Job).where(Job.parent_id.is_(None)).order_by(Job.id.desc())
"""Jobs that a person submitted, not the parts of one."""


@dataclass(frozen=True)
class Throughput:
    """How much is being done."""

    running: int
    queued: int
    rows: int
    """Accepted in datasets of the last day."""
    tokens_per_s: float
    """Completion tokens of builds and tokens of trainings, as their last events told."""


@dataclass(frozen=True)
class Overview:
    """What the page shows."""

    throughput: Throughput
    running: list[JobView]
    troubled: list[JobView]
    """Paused, unable to start, or failed lately."""
    silent: list[TeacherView]
    """Teachers that did not answer their last probe."""
    latest: list[JobView]
    teachers: int


@router.get("/")
def show_overview(request: Request, site: TheSite) -> HTMLResponse:
    """Everything at a glance."""
    return page(request, "overview.html", seen=_look(site))


@router.get("/overview/live")
def show_live(request: Request, site: TheSite) -> HTMLResponse:
    """The part of it that moves."""
    return page(request, "overview_live.html", seen=_look(site))


def _look(site: Site) -> Overview:
    teachers = [teacher_view(teacher) for teacher in registry.listing(site)]
    with site.sessions.reading() as session:
        running = session.scalars(TOPS.where(Job.state == State.RUNNING).limit(SHOWN))
        return Overview(
            throughput=_throughput(session),
            running=[job_view(job) for job in running],
            troubled=[job_view(job) for job in _troubled(session)],
            silent=[each for each in teachers if each.probe and not each.probe.get("ok")],
            latest=[job_view(job) for job in jobs.listing(session, limit=8)],
            teachers=len(teachers),
        )


def _troubled(session: Session) -> list[Job]:
    waiting = TOPS.where(Job.state == State.QUEUED, Job.waiting_for.is_not(None))
    failed = TOPS.where(Job.state == State.FAILED, Job.finished_at > now() - RECENT)
    paused = TOPS.where(Job.state == State.PAUSED)
    return [
        job for query in (paused, waiting, failed) for job in session.scalars(query.limit(SHOWN))
    ]


def _throughput(session: Session) -> Throughput:
    counted = session.execute(select(Job.state, func.count()).group_by(Job.state))
    states = {row[0]: row[1] for row in counted}
    fresh = select(Artifact.summary).where(
        Artifact.kind == "dataset", Artifact.created_at > now() - DAY
    )
    return Throughput(
        running=states.get(State.RUNNING, 0),
        queued=states.get(State.QUEUED, 0),
        rows=sum(int(summary.get("accepted") or 0) for summary in session.scalars(fresh)),
        tokens_per_s=_tokens_per_s(session),
    )


def _tokens_per_s(session: Session) -> float:
    newest = (
        select(func.max(Event.id))
        .join(Job, Job.id == Event.job_id)
        .where(Job.state == State.RUNNING, Event.type.in_(["progress", "step"]))
        .group_by(Event.job_id)
    )
    told = session.scalars(select(Event.data).where(Event.id.in_(newest)))
    rates = (data.get("completion_tokens_per_s") or data.get("tokens_per_s") or 0 for data in told)
    return float(sum(rates))
