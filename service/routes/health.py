"""Whether the service can do its work."""

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from service.routes.deps import TheSite
from service.site import Site

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """What works."""

    status: str
    """ok; degraded: jobs are taken but start late; down: the database is away."""
    database: bool
    broker: bool


@router.get("/health")
def show_health(site: TheSite, response: Response) -> Health:
    """200 while jobs can be taken, 503 if not."""
    database, broker = _database(site), site.broker.depth("control") is not None
    if not database:
        response.status_code = 503
        return Health(status="down", database=database, broker=broker)
    return Health(status="ok" if broker else "degraded", database=database, broker=broker)


def _database(site: Site) -> bool:
    try:
        with site.sessions.reading() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
