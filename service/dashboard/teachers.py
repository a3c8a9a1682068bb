"""Teachers: what each can do, registering, probing, forgetting."""

import asyncio
from typing import Annotated

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import errors, load, registry
from service.dashboard.page import page, page_router, see
from service.load import Load
from service.pages import cut
from service.problems import Problem, bad_input
from service.routes.deps import TheSite
from service.site import Site
from service.teachers import Registration
from service.views import teacher_view

router = page_router()

PAGE = 50

Text = Annotated[str, Form(max_length=500)]


@router.get("/teachers")
def list_teachers(request: Request, site: TheSite, cursor: str | None = None) -> HTMLResponse:
    """Teachers, by name."""
    return _page(request, site, {}, None, 200, cursor)


@router.post("/teachers")
async def register(
    request: Request,
    site: TheSite,
    name: Text = "",
    base_url: Text = "",
    served_model: Text = "",
    api_key: Annotated[str, Form(max_length=10_000)] = "",
    api_key_env: Text = "",
    licence: Text = "",
    model: Text = "",
    max_in_flight: Text = "",
    gpus: Text = "",
    price_prompt: Text = "",
    price_completion: Text = "",
    check: Text = "",
) -> Response:
    """Register one; what is wrong comes back beside the form."""
    given = {
        "name": name,
        "base_url": base_url,
        "served_model": served_model,
        "api_key_env": api_key_env,
        "licence": licence,
        "model": model,
        "max_in_flight": max_in_flight,
        "gpus": gpus,
        "price_prompt": price_prompt,
        "price_completion": price_completion,
    }
    typed = given | {"api_key": api_key}
    try:
        wanted = _registration({key: text.strip() for key, text in typed.items() if text.strip()})
        await registry.register(site, wanted, check=check == "on")
    except Problem as problem:
        return await asyncio.to_thread(_page, request, site, given, problem, problem.status)
    return see("/teachers")


@router.post("/teachers/{name}/probe")
async def probe(site: TheSite, name: str) -> Response:
    """Ask again."""
    await registry.probe(site, name)
    return see("/teachers")


@router.post("/teachers/{name}/delete")
def delete(site: TheSite, name: str) -> Response:
    """Forget one."""
    registry.delete(site, name)
    return see("/teachers")


def _registration(given: dict[str, str]) -> Registration:
    try:
        return Registration.model_validate(given)
    except ValidationError as error:
        faults = list(errors.faults(error.errors(), None))
        raise bad_input(faults, "It can't be registered like this") from error


def _page(
    request: Request,
    site: Site,
    given: dict[str, str],
    problem: Problem | None,
    status: int,
    cursor: str | None = None,
) -> HTMLResponse:
    found = registry.listing(site, cursor, PAGE + 1)
    shown, more = cut(found, PAGE, lambda teacher: teacher.name)
    with site.sessions.reading() as session:
        known = load.loads(session)
    return page(
        request,
        "teachers.html",
        status,
        teachers=[(teacher_view(one), known.get(one.name, Load())) for one in shown],
        more=more,
        cursor=cursor,
        given=given,
        problem=problem,
    )
