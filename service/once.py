"""`Idempotency-Key`: a request that is repeated under its key is answered as it was the first time.

The same body replays the answer, another body is refused (422), and one that comes while the first
is under way is told so (409). Only successes are kept: a refused request made nothing, and may be
mended under its key. A file's upload streams and is not covered.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import anyio.to_thread
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.addresses import API
from service.problems import MEDIA_TYPE, Problem, conflict
from service.site import Site
from service.tables import Reply, now, utc

HEADER = "idempotency-key"
STREAMED = f"{API}/files"
LARGEST_BYTES = 16 * 2**20
ABANDONED = timedelta(minutes=10)
"""An answer that is not there after so long never comes: its process died."""
KEPT = timedelta(days=7)
REPLAYED = ("content-type", "location")


@dataclass(frozen=True)
class Claim:
    """A request that holds its key."""

    key_sha256: str
    request_sha256: str


@dataclass
class _Capture:
    """Passes an answer on and remembers it."""

    send: Send
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = Headers(raw=message["headers"])
            self.headers = {name: given[name] for name in REPLAYED if name in given}
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
        await self.send(message)


class Once:
    """ASGI middleware; stands inside the gate, for keys are each caller's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it from what is kept."""
        if not _is_covered(scope):
            await self._app(scope, receive, send)
            return
        site: Site = scope["app"].state.site
        try:
            body = await _read(receive)
            claim = _claim_of(scope, body)
            earlier = await anyio.to_thread.run_sync(take, site, claim, now())
        except Problem as problem:
            await _refusal(scope, problem)(scope, receive, send)
            return
        except OperationalError as error:
            await _refusal(scope, errors.database_away(error))(scope, receive, send)
            return
        if earlier is not None:
            replay = Response(earlier.body, earlier.status or 200, earlier.headers)
            await replay(scope, receive, send)
            return
        await self._first(site, claim, scope, _again(body, receive), send)

    async def _first(
        self, site: Site, claim: Claim, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer = _Capture(send)
        try:
            await self._app(scope, receive, answer)
        finally:
            succeeded = 200 <= answer.status < 300
            await anyio.to_thread.run_sync(keep if succeeded else give_up, site, claim, answer)


def take(site: Site, claim: Claim, at: datetime) -> Reply | None:
    """Claim the key for this request. The answer that is kept for it, or None: then the request is
    the first. Raises a 422 problem for another request's key, 409 while the first is under way."""
    try:
        with site.sessions.writing.begin() as session:
            found = session.get(Reply, claim.key_sha256, with_for_update=True)
            if found is None:
                fields = {"key_sha256": claim.key_sha256, "request_sha256": claim.request_sha256}
                session.add(Reply(**fields, status=None, headers={}, body="", at=at))
                return None
            if found.request_sha256 != claim.request_sha256:
                raise Problem(
                    422,
                    "idempotency-key-reused",
                    "Idempotency key used before",
                    "This key came with another request; use a new key for a new request.",
                )
            if found.status is not None:
                return found
            if at - utc(found.at) < ABANDONED:
                raise _under_way()
            found.at = at
            return None
    except IntegrityError as error:
        raise _under_way() from error


def keep(site: Site, claim: Claim, answer: _Capture) -> None:
    """Remember what the first request was answered."""
    with site.sessions.writing.begin() as session:
        found = session.get(Reply, claim.key_sha256)
        if found is not None:
            found.status, found.headers = answer.status, answer.headers
            found.body = answer.body.decode()


def give_up(site: Site, claim: Claim, answer: _Capture) -> None:
    """Nothing was made: the key is free again."""
    with site.sessions.writing.begin() as session:
        session.execute(delete(Reply).where(Reply.key_sha256 == claim.key_sha256))


def forget_old(site: Site, at: datetime) -> None:
    """Drop the answers that were kept long enough."""
    with site.sessions.reading() as session:
        oldest = session.scalar(select(Reply.at).order_by(Reply.at).limit(1))
    if oldest is not None and at - utc(oldest) > KEPT:
        with site.sessions.writing.begin() as session:
            session.execute(delete(Reply).where(Reply.at < at - KEPT))


def _is_covered(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    inside = scope["path"].startswith(f"{API}/") and scope["path"] != STREAMED
    return inside and HEADER in Headers(scope=scope)


def _claim_of(scope: Scope, body: bytes) -> Claim:
    caller = scope.get("state", {}).get("caller")
    who = caller.name if caller is not None else ""
    key = hashlib.sha256(json.dumps([who, Headers(scope=scope)[HEADER]]).encode())
    request = hashlib.sha256(f"{scope['path']}?{scope['query_string'].decode()}\n".encode())
    request.update(_canonical(body))
    return Claim(key.hexdigest(), request.hexdigest())


def _canonical(body: bytes) -> bytes:
    """The same JSON written otherwise is the same body."""
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except ValueError:
        return body


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST_BYTES:
            detail = f"With an Idempotency-Key a body may have {LARGEST_BYTES:,} bytes."
            raise Problem(413, "too-large", "The request is too large", detail)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever comes: the client's going away."""
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return waiting.pop() if waiting else await receive()

    return read


def _under_way() -> Problem:
    return conflict(
        "The first request is under way", "It came with this key too. Try again in a moment."
    )


def _refusal(scope: Scope, problem: Problem) -> Response:
    return JSONResponse(problem.document(scope["path"]), problem.status, media_type=MEDIA_TYPE)
