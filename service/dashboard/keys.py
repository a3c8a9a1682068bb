"""API keys: make, list, limit, revoke."""

from typing import Annotated, Any

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import errors, keys, login, quotas
from service.dashboard.page import page, page_router, see
from service.keys import NewKey
from service.login import Ticket
from service.pages import cut
from service.problems import Problem
from service.quotas import Limits
from service.routes.deps import TheSite
from service.site import Site
from service.tables import now
from service.views import MadeKey, key_detail, key_view, made_key

router = page_router()

PAGE = 50
FRESH: dict[str, Any] = {"name": "", "scopes": ("read", "submit"), "limits": {}}
"""What the form of a new key begins with."""
Limit = Annotated[str, Form(max_length=40)]


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
    requests_per_minute: Limit = "",
    jobs_at_once: Limit = "",
    tokens_per_day: Limit = "",
) -> Response:
    """Make one and show it, this once."""
    limits = _limits(requests_per_minute, jobs_at_once, tokens_per_day)
    given = {"name": name.strip(), "scopes": scopes or [], "limits": limits}
    try:
        wanted = NewKey.model_validate(given)
    except ValidationError as error:
        faults = errors.faults(error.errors(), None)
        wrong = Problem(422, "bad-input", "No such key", "", faults)
        return _page(request, site, None, wrong, given=given)
    is_first = not keys.listing(site, limit=1)
    key, token = keys.create(site, wanted)
    # Until now everybody on this machine was let in; whoever made the key goes on with it.
    ticket = login.new_ticket(key_id=key.id) if is_first else None
    return _page(request, site, made_key(key, token), None, ticket)


@router.get("/keys/{key_id}")
def show_key(request: Request, site: TheSite, key_id: str) -> HTMLResponse:
    """A key with its limits, and what it has used of them."""
    return _one(request, site, key_id, None, None)


@router.post("/keys/{key_id}/limits")
def limit(
    request: Request,
    site: TheSite,
    key_id: str,
    requests_per_minute: Limit = "",
    jobs_at_once: Limit = "",
    tokens_per_day: Limit = "",
) -> Response:
    """Set a key's limits; an empty one is lifted."""
    given = _limits(requests_per_minute, jobs_at_once, tokens_per_day)
    try:
        keys.limit(site, key_id, Limits.model_validate(given))
    except ValidationError as error:
        faults = errors.faults(error.errors(), None)
        wrong = Problem(422, "bad-input", "No such limit", "", faults)
        return _one(request, site, key_id, given, wrong)
    return see(f"/keys/{key_id}")


@router.post("/keys/{key_id}/revoke")
def revoke(site: TheSite, key_id: str) -> Response:
    """Make one useless."""
    keys.revoke(site, key_id)
    return see("/keys")


def _limits(requests: str, jobs: str, tokens: str) -> dict[str, str | None]:
    """As they were typed; nothing is no limit."""
    return {
        "requests_per_minute": requests.strip() or None,
        "jobs_at_once": jobs.strip() or None,
        "tokens_per_day": tokens.strip() or None,
    }


def _one(
    request: Request,
    site: Site,
    key_id: str,
    given: dict[str, str | None] | None,
    problem: Problem | None,
) -> HTMLResponse:
    with site.sessions.reading() as session:
        key = keys.get(session, key_id)
        shown = key_detail(key, quotas.usage(session, key, now()))
    return page(
        request,
        "key.html",
        problem.status if problem is not None else 200,
        key=shown,
        limits=shown.model_dump() if given is None else given,
        problem=problem,
    )


def _page(
    request: Request,
    site: Site,
    made: MadeKey | None,
    problem: Problem | None,
    ticket: Ticket | None = None,
    cursor: str | None = None,
    given: dict[str, Any] | None = None,
) -> HTMLResponse:
    found, more = cut(keys.listing(site, cursor, PAGE + 1), PAGE, lambda key: key.id)
    status = problem.status if problem is not None else 200
    return page(
        request,
        "keys.html",
        status,
        keys=[key_view(key) for key in found],
        more=more,
        cursor=cursor,
        made=made,
        problem=problem,
        scopes=keys.SCOPES,
        given=given or FRESH,
        ticket=ticket,
    )
