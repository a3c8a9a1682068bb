"""Whether the process lives, and whether the service can do its work."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.addresses import ALIVE, READY
from service.broker import QUEUES
from service.routes.deps import TheSite
from service.shared import StorageError
from service.site import Site
from service.tables import Teacher

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Health(BaseModel):
    """What works."""

    status: Literal["ok", "degraded", "down"]
    """degraded: jobs are taken but start late, for the broker or a queue's workers are away; down:
    the database or the artifacts' bucket is away."""
    database: bool
    artifacts: bool
    broker: bool
    workers: dict[str, int]
    """Queue -> how many workers answered for it just now."""
    teachers: dict[str, bool]
    """Teacher -> whether its last probe found it well. One that is away holds up only its own
    builds, so it doesn't count against `status`."""


@router.get(ALIVE)
def show_alive() -> Alive:
    """200 as long as the process answers; looks at nothing else."""
    return Alive()


AWAY = "The database, or the artifacts' bucket, is away."


@router.get(READY, responses={503: {"model": Health, "description": AWAY}})
def show_health(site: TheSite, response: Response) -> Health:
    """200 while jobs can be taken, 503 if not."""
    teachers, artifacts = _teachers(site), _artifacts(site)
    if teachers is None or not artifacts:
        response.status_code = 503
        return Health(
            status="down",
            database=teachers is not None,
            artifacts=artifacts,
            broker=False,
            workers={},
            teachers=teachers or {},
        )
    broker = site.broker.depth("control") is not None
    workers = dict.fromkeys(sorted(set(QUEUES.values())), 0)
    workers |= site.broker.workers() if broker else {}
    well = broker and all(workers.values())
    status: Literal["ok", "degraded"] = "ok" if well else "degraded"
    return Health(
        status=status,
        database=True,
        artifacts=True,
        broker=broker,
        workers=workers,
        teachers=teachers,
    )


def _artifacts(site: Site) -> bool:
    try:
        site.store.shared.check()
    except StorageError:
        return False
    return True


def _teachers(site: Site) -> dict[str, bool] | None:
    """What the last probes found; None if the database can't be asked."""
    try:
        with site.sessions.reading() as session:
            found = session.execute(select(Teacher.name, Teacher.probe).order_by(Teacher.name))
            return {name: bool(probe.get("ok")) for name, probe in found}
    except SQLAlchemyError:
        return None
