"""Who may do what: every request passes the gate before any route sees it.

With no keys made, everything is allowed from this machine and nothing from elsewhere. With keys, a
request shows one (`Authorization: Bearer`) or a session's cookie. Requests that a browser sends on
another site's behalf are refused, and so are those for a host name that isn't ours (DNS rebinding).
"""

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import anyio.to_thread
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import errors, keys, login, quotas, request_headers
from service.addresses import ALIVE, API, OPENAI, READY
from service.login import Ticket
from service.openai import errors as openai_errors
from service.problems import MEDIA_TYPE, Problem
from service.settings import Settings
from service.site import Site
from service.spec import JobSpec
from service.tables import ApiKey, now

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FOR_ALL = (ALIVE, READY, "/login", "/logout", "/static")
ADMIN_ONLY = ("/keys", "/gc")
ADMIN_WRITES = ("/teachers",)
TRAIN_WRITES = (f"{OPENAI}/fine_tuning",)
ON_DEVICE = frozenset({"train", "compress", "serve"})
"""Kinds of jobs that take the device."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CSRF_HEADER = "x-csrf-token"


@dataclass(frozen=True)
class Caller:
    """Whoever asks."""

    name: str
    scopes: frozenset[str]
    ticket: Ticket | None = None
    """The session, for requests of a browser."""
    key: ApiKey | None = None
    """The key that was shown, or that opened the session."""

    @property
    def key_id(self) -> str | None:
        """Of the key, if there is one."""
        return self.key.id if self.key is not None else None

    def holds(self, scope: keys.Scope) -> bool:
        """Whether this caller may do what needs `scope`; admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: keys.Scope) -> None:
        """Raise a 403 problem unless the caller holds the scope."""
        if not self.holds(scope):
            held = ", ".join(sorted(self.scopes)) or "none"
            raise Problem(
                403,
                "scope-missing",
                "The key doesn't allow this",
                f"This needs the scope {scope!r}; {self.name} has: {held}. Use another key.",
            )


ALL = frozenset(keys.SCOPES)


def required(method: str, path: str) -> keys.Scope | None:
    """The scope that a request needs; None for what everybody may see. What isn't named here needs
    `read` to look and `submit` to change."""
    if _under(path, FOR_ALL):
        return None
    noun = path.removeprefix(API)
    safe = method in SAFE_METHODS
    if _under(noun, ADMIN_ONLY) or (not safe and _under(noun, ADMIN_WRITES)):
        return "admin"
    if not safe and _under(path, TRAIN_WRITES):
        return "train"
    return "read" if safe else "submit"


def required_for(spec: JobSpec) -> keys.Scope:
    """The scope that submitting a job needs."""
    if spec.kind == "recipe":
        parts = (spec.serve, spec.train, spec.compress)
        return "train" if any(part is not None for part in parts) else "submit"
    return "train" if spec.kind in ON_DEVICE else "submit"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOCAL_NAMES


def require_keys_elsewhere(site: Site) -> None:
    """Raise a problem if the settings open the API to other machines and nobody made a key."""
    with site.sessions.reading() as session:
        if is_loopback(site.settings.host) or keys.any_made(session):
            return
    raise Problem(
        403,
        "no-keys",
        "Listening elsewhere needs a key",
        f"RETORT_HOST is {site.settings.host}, which other machines can reach, and no key was made."
        " Make one first: retort keys create NAME --scope admin",
    )


class Gate:
    """ASGI middleware. Puts the `Caller` into the request's state, or answers in its place; `shown`
    makes the page that tells a browser of a problem."""

    def __init__(self, app: ASGIApp, shown: Callable[[Request, Problem], Response]) -> None:
        self._app = app
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["caller"] = None
        answer: ASGIApp = self._app
        try:
            await _admit(scope, headers)
        except Problem as problem:
            answer = await self._refusal(scope, headers, problem)
        except OperationalError as error:
            answer = await self._refusal(scope, headers, errors.database_away(error))
        await answer(scope, receive, send)

    async def _refusal(self, scope: Scope, headers: Headers, problem: Problem) -> Response:
        path: str = scope["path"]
        if "text/html" not in headers.get("accept", "") or _under(path, (API, OPENAI)):
            return _document(path, problem)
        if problem.status == 401 and scope["method"] == "GET":
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = f"{path}?{query}" if query else path
            return RedirectResponse(f"/login?{urlencode({'next': wanted})}", 303)
        page = await anyio.to_thread.run_sync(self._shown, Request(scope), problem)
        page.headers.update(_extra(problem))
        return page


async def _admit(scope: Scope, headers: Headers) -> None:
    """Find out who asks. Raises the problem of a request that isn't let in."""
    site: Site = scope["app"].state.site
    method, path = scope["method"], scope["path"]
    _check_host(site.settings, headers)
    needed = required(method, path)
    if needed is None:
        # Without the database: it may be what is asked after.
        _check_origin(method, path, headers, None)
        return
    caller = await anyio.to_thread.run_sync(identify, site, headers, _client(scope))
    if caller is None:
        raise _unauthorized("Show a key: Authorization: Bearer KEY (RETORT_API_KEY for retort).")
    scope["state"]["caller"] = caller
    if "\0" in path or b"%00" in scope.get("query_string", b""):
        raise Problem(422, "bad-input", "The address can't be read", errors.NO_NUL)
    _check_origin(method, path, headers, caller)
    if caller.key is not None and caller.key.requests_per_minute and _under(path, (API, OPENAI)):
        await anyio.to_thread.run_sync(quotas.take_request, site, caller.key.id, now())
    caller.require(needed)


def identify(site: Site, headers: Mapping[str, str], client: str | None) -> Caller | None:
    """Who asks; None for somebody unknown. Raises a 401 problem for a key that doesn't hold, and a
    403 problem for another machine where no keys were made."""
    token = request_headers.bearer(headers)
    ticket = login.opened(site.settings, request_headers.cookie(headers, login.COOKIE))
    with site.sessions.reading() as session:
        if not keys.any_made(session):
            _require_local(client)
            return Caller("this machine", ALL, ticket)
        key = _key(session, token, ticket)
    if token is not None and key is None:
        raise _unauthorized("The key is unknown or was revoked.")
    if key is not None:
        keys.note_use(site, key)
        opened = None if token else ticket
        return Caller(f"key {key.name!r}", frozenset(key.scopes), opened, key)
    if ticket is not None and ticket.by_link:
        return Caller("the terminal's session", ALL, ticket)
    return None


def _key(session: Session, token: str | None, ticket: Ticket | None) -> ApiKey | None:
    if token is not None:
        return keys.by_token(session, token)
    if ticket is not None and ticket.key_id is not None:
        return keys.by_id(session, ticket.key_id)
    return None


def _check_host(settings: Settings, headers: Mapping[str, str]) -> None:
    """A page elsewhere can point its own name at 127.0.0.1, but not change the Host header."""
    if not is_loopback(settings.host):
        return
    host = request_headers.host(headers)
    ours = {urlsplit(settings.api_url).hostname or "", settings.host}
    if host not in ours and not is_loopback(host):
        raise Problem(
            403,
            "host",
            "Not a name of this API",
            f"The request asks for the host {host!r}. RETORT_API_URL says what name it has.",
        )


def _check_origin(
    method: str, path: str, headers: Mapping[str, str], caller: Caller | None
) -> None:
    """Refuse what a browser was made to send by another site."""
    if method in SAFE_METHODS or "authorization" in headers:
        return
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise forged("It comes from another site.")
    by_cookie = caller is not None and caller.ticket is not None
    # The dashboard's forms carry the token inside, where its routes check it.
    if by_cookie and _under(path, (API, OPENAI)):
        check_csrf(caller, headers.get(CSRF_HEADER))


def check_csrf(caller: Caller | None, given: str | None) -> None:
    """Raise a 403 problem unless the session's own token was given."""
    ticket = caller.ticket if caller is not None else None
    if ticket is None or not hmac.compare_digest(ticket.csrf, given or ""):
        raise forged("Its token is missing or old: load the page again.")


def forged(why: str) -> Problem:
    """403: perhaps not what the user wanted."""
    return Problem(403, "csrf", "The request may be forged", why)


def _document(path: str, problem: Problem) -> Response:
    if _under(path, (OPENAI,)):
        return openai_errors.answer(problem)
    return JSONResponse(problem.document(path), problem.status, _extra(problem), MEDIA_TYPE)


def _extra(problem: Problem) -> dict[str, str]:
    return problem.headers | ({"WWW-Authenticate": "Bearer"} if problem.status == 401 else {})


def _unauthorized(why: str) -> Problem:
    return Problem(401, "unauthorized", "A key is needed", why)


def _require_local(client: str | None) -> None:
    if client is not None and not is_loopback(client):
        raise Problem(
            403,
            "no-keys",
            "No keys were made",
            "Without keys only this machine is served. Make one: retort keys create NAME",
        )


def _client(scope: Scope) -> str | None:
    """The peer's address; None on a unix socket."""
    client = scope.get("client")
    return str(client[0]) if client and client[0] else None


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
