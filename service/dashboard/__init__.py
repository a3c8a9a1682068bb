"""The dashboard: pages made on the server, over the same service functions as the API."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from service.dashboard import (
    datasets,
    jobs,
    keys,
    models,
    newjob,
    overview,
    playground,
    reviewing,
    schedules,
    session,
    teachers,
    versions,
)

STATIC = Path(__file__).parent / "static"

ROUTERS = (
    session.router,
    overview.router,
    newjob.router,
    jobs.router,
    datasets.router,
    reviewing.router,
    versions.router,
    models.router,
    playground.router,
    teachers.router,
    schedules.router,
    keys.router,
)


def install(app: FastAPI) -> None:
    """Put the pages under `/`, left out of the API's documentation."""
    for router in ROUTERS:
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
