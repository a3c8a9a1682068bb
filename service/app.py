"""The REST API: `uvicorn --factory service.app:create_app`.

Imports nothing that loads torch.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from service import access, dashboard, db, errors, logs, reconcile, spans
from service.addresses import API, OPENAI
from service.dashboard.page import show_problem
from service.metrics import registry_of
from service.once import Once
from service.openai.app import create_app as openai_face
from service.routes import (
    datasets,
    files,
    health,
    jobs,
    keys,
    metrics,
    models,
    reports,
    schedules,
    teachers,
    upkeep,
)
from service.routes.deps import AT_THE_GATE
from service.settings import Settings, load
from service.site import Site, open_site
from service.traced import Tracing
from service.turns import Turns

log = logging.getLogger(__name__)

DESCRIPTION = """
Turns a large teacher language model into a small student that does the same job.

Submit a job with `POST /api/v1/jobs`, follow it with `GET /api/v1/jobs/{id}/events`. Errors are
problem documents (RFC 9457) whose `errors` say where in the request something is wrong.
"""

ROUTERS = (
    jobs.router,
    files.router,
    datasets.router,
    models.router,
    reports.router,
    teachers.router,
    keys.router,
    schedules.router,
    upkeep.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Without settings it reads the environment's. Tables are brought up to date
    when it starts."""
    site = open_site(settings or load())
    app = FastAPI(title="Retort", version="0.1.0", description=DESCRIPTION, lifespan=_lifespan)
    app.state.site = site
    app.state.metrics = registry_of(site)
    app.state.turns = Turns()
    for router in ROUTERS:
        app.include_router(router, prefix=API, responses=AT_THE_GATE)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.mount(OPENAI, openai_face(app.state))
    dashboard.install(app)
    errors.install(app)
    app.add_middleware(Once)
    app.add_middleware(access.Gate, shown=show_problem)
    if site.settings.tracing:
        app.add_middleware(Tracing)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    site: Site = app.state.site
    logs.configure(site.settings)
    spans.start(site.settings, "api")
    await asyncio.to_thread(db.upgrade, site.sessions.engine)
    await asyncio.to_thread(access.require_keys_elsewhere, site)
    reconciling = asyncio.create_task(_reconcile(site))
    yield
    reconciling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reconciling
    await app.state.turns.close()
    await asyncio.to_thread(spans.stop)
    site.sessions.engine.dispose()


async def _reconcile(site: Site) -> None:
    while True:
        try:
            await asyncio.to_thread(reconcile.tick, site)
        except (SQLAlchemyError, OSError):
            log.exception("reconcile failed; trying again in %s s", site.settings.reconcile_s)
        await asyncio.sleep(site.settings.reconcile_s)


def __getattr__(name: str) -> FastAPI:
    # `uvicorn service.app:app` works too; made when asked for, so that an import has no effects.
    if name == "app":
        return create_app()
    raise AttributeError(name)
