"""Logging in and out of the dashboard."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse

from service import keys, login
from service.dashboard.page import PageRoute, page, remember, see
from service.problems import Problem
from service.routes.deps import TheSite

router = APIRouter(route_class=PageRoute)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> HTMLResponse:
    """How to get in; a link from the terminal shows a button, so that nothing that merely looks at
    links uses it up."""
    token = request.query_params.get("token")
    return page(request, "login.html", token=token, next=_inside(next), problem=None)


@router.post("/login")
def log_in(
    request: Request,
    site: TheSite,
    token: Annotated[str, Form()] = "",
    key: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Open a session with a login link or a key."""
    try:
        ticket = login.redeem(site, token) if token else _by_key(site, key)
    except Problem as problem:
        return page(
            request, "login.html", problem.status, token=None, next=_inside(next), problem=problem
        )
    answer = see(_inside(next))
    remember(request, answer, ticket)
    return answer


@router.post("/logout")
def log_out() -> Response:
    """Forget the session."""
    answer = see("/login")
    answer.delete_cookie(login.COOKIE)
    return answer


def _by_key(site: TheSite, token: str) -> login.Ticket:
    with site.sessions.reading() as session:
        key = keys.by_token(session, token.strip())
    if key is None:
        raise Problem(401, "unauthorized", "Not let in", "The key is unknown or was revoked.")
    keys.note_use(site, key)
    return login.new_ticket(key_id=key.id)


def _inside(path: str) -> str:
    """A path of this site; never another one's address."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else "/"
