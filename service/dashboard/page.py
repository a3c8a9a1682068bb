"""What every page has in common: template, session, security headers, errors for people."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import ChainableUndefined, Environment, PackageLoader
from sqlalchemy.exc import DataError, OperationalError

from service import errors, login
from service.access import CSRF_HEADER, SAFE_METHODS, Caller, check_csrf, required_for
from service.dashboard import words
from service.keys import Scope
from service.login import Ticket
from service.problems import Problem
from service.shared import StorageError
from service.spec import job_spec

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Nothing inline runs, whatever a teacher said; nothing is fetched from elsewhere."""

templates = Environment(
    loader=PackageLoader("service.dashboard"),
    autoescape=True,
    undefined=ChainableUndefined,  # what jobs tell of themselves is JSON: much of it optional
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(words.FILTERS)
templates.filters["scope"] = lambda spec: required_for(job_spec.validate_python(spec))


class PageRoute(APIRoute):
    """A route whose problems are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, its problems caught."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                return await anyio.to_thread.run_sync(show_problem, request, problem)
            except RequestValidationError as error:
                found = errors.faults(error.errors(), error.body)
                wrong = Problem(422, "invalid", "This can't be read", "Look again.", found)
                return await anyio.to_thread.run_sync(show_problem, request, wrong)
            except OperationalError as error:
                away = errors.database_away(error)
                return await anyio.to_thread.run_sync(show_problem, request, away)
            except DataError as error:
                wrong = errors.not_stored(error)
                return await anyio.to_thread.run_sync(show_problem, request, wrong)
            except StorageError as error:
                away = errors.storage_away(error)
                return await anyio.to_thread.run_sync(show_problem, request, away)

        return answer


async def check_form(request: Request) -> None:
    """Refuse a write without the session's token, in the form or in htmx's header."""
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None:
        given = str((await request.form()).get("csrf", ""))
    check_csrf(caller_of(request), given)


def page_router() -> APIRouter:
    """A router for pages of a session."""
    return APIRouter(route_class=PageRoute, dependencies=[Depends(check_form)])


def caller_of(request: Request) -> Caller | None:
    """Whoever asks; None on pages for everybody."""
    caller: Caller | None = request.state.caller
    return caller


def require(request: Request, scope: Scope) -> None:
    """Raise a 403 problem unless whoever asks holds the scope."""
    caller = caller_of(request)
    if caller is None:
        raise Problem(401, "unauthorized", "A key is needed", "Log in first.")
    caller.require(scope)


def page(
    request: Request,
    template: str,
    status: int = 200,
    *,
    ticket: Ticket | None = None,
    **content: Any,
) -> HTMLResponse:
    """A page or a part of one. A browser without a session is given one: its token protects the
    forms, and opens nothing by itself. `ticket` puts another session in the place of the old."""
    caller = caller_of(request)
    known = caller.ticket if caller is not None else None
    fresh = ticket is not None or known is None
    ticket = ticket or known or login.new_ticket()
    text = templates.get_template(template).render(
        path=request.url.path, caller=caller, csrf=ticket.csrf, **content
    )
    answer = HTMLResponse(text, status, HEADERS)
    if fresh and caller is not None:
        remember(request, answer, ticket)
    return answer


def see(path: str) -> RedirectResponse:
    """After a form: go and look."""
    return RedirectResponse(path, 303)


def remember(request: Request, answer: Response, ticket: Ticket) -> None:
    """Give the browser its session."""
    answer.set_cookie(
        login.COOKIE,
        login.sealed(request.app.state.site.settings, ticket),
        max_age=login.SESSION_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def show_problem(request: Request, problem: Problem) -> HTMLResponse:
    """A problem as a page."""
    return page(request, "error.html", problem.status, problem=problem)
