"""Teachers: register, list, show, probe, forget."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Query

from service import registry
from service.pages import cut
from service.routes.deps import PROBLEMS, TheSite, documented
from service.routes.examples import TEACHERS
from service.teachers import Registration
from service.views import TeacherPage, TeacherView, teacher_view

router = APIRouter(prefix="/teachers", tags=["teachers"], responses=PROBLEMS)


@router.post("", status_code=201, responses=documented({502: "The server can't be reached."}))
async def register_teacher(
    site: TheSite,
    registration: Annotated[Registration, Body(openapi_examples=TEACHERS)],
    check: Annotated[
        bool, Query(description="false registers a server that isn't running yet.")
    ] = True,
) -> TeacherView:
    """Register a teacher, or replace the one of that name. Its server is asked for one token first;
    what is wrong is refused with what to do about it."""
    return teacher_view(await registry.register(site, registration, check=check))


@router.get("")
def list_teachers(
    site: TheSite,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> TeacherPage:
    """Teachers, by name, with what their last probe found."""
    found = registry.listing(site, cursor, limit + 1)
    page, more = cut(found, limit, lambda teacher: teacher.name)
    return TeacherPage(teachers=[teacher_view(each) for each in page], next=more)


@router.get("/{name}")
def show_teacher(site: TheSite, name: str) -> TeacherView:
    """A teacher, with what its last probe found."""
    return teacher_view(registry.get(site, name))


@router.post("/{name}/probe")
async def probe_teacher(site: TheSite, name: str) -> TeacherView:
    """Ask a teacher's server again. What is wrong is in the answer's `probe.error`."""
    return teacher_view(await registry.probe(site, name))


@router.delete("/{name}", status_code=204)
async def delete_teacher(site: TheSite, name: str) -> None:
    """Forget a teacher. Datasets that it made keep its name."""
    await asyncio.to_thread(registry.delete, site, name)
