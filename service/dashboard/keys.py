"""API keys: make, list, revoke."""

from typing import Annotated

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import errors, keys, login
from service.dashboard.page import page, page_router, see
from service.keys import NewKey
from service.login import Ticket
from service.problems import Problem
from service.routes.deps import TheSite
from service.site import Site
from service.views import MadeKey, key_view, made_key

router = page_router()

PAGE = 50


@router.get("/keys")
def list_keys(request: Request, site: TheSite, cursor: str | None = None) -> HTMLResponse:
    """Keys, newest first."""
    return _page(request, site, None, None, cursor=cursor)


@router.post("/keys")
def create(
    request: Request,
    site: TheSite,
    name: Annotated[str, Form()] = "",
    scopes: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Make one and show it, this once."""
    try:
        wanted = NewKey.model_validate({"name": name.strip(), "scopes": scopes or []})
    except ValidationError as error:
        faults = errors.faults(error.errors(), None)
        return _page(request, site, None, Problem(422, "bad-input", "No such key", "", faults))
    is_first = not keys.listing(site, limit=1)
    key, token = keys.create(site, wanted)
    # Until now everybody on this machine was let in; whoever made the key goes on with it.
    ticket = login.new_ticket(key_id=key.id) if is_first else None
    return _page(request, site, made_key(key, token), None, ticket)


@router.post("/keys/{key_id}/revoke")
def revoke(site: TheSite, key_id: str) -> Response:
    """Make one useless."""
    keys.revoke(site, key_id)
    return see("/keys")


def _page(
    request: Request,
    site: Site,
    made: MadeKey | None,
    problem: Problem | None,
    ticket: Ticket | None = None,
    cursor: str | None = None,
) -> HTMLResponse:
    found = [key_view(key) for key in keys.listing(site, cursor, PAGE + 1)]
    status = problem.status if problem is not None else 200
    return page(
        request,
        "keys.html",
        status,
        keys=found[:PAGE],
        more=found[PAGE - 1].id if len(found) > PAGE else None,
        cursor=cursor,
        made=made,
        problem=problem,
        scopes=keys.SCOPES,
        ticket=ticket,
    )
