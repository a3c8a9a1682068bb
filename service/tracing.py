"""The trace that a request belongs to, in W3C's form (Trace Context, level 1), from the API through
SQL to the worker and the teacher.

With `RETORT_TRACING` a request's `traceparent`, or a new one, is kept with the job that it submits;
whoever works on the job sends it to the teacher with a span id of each request's own, and JSON logs
carry its trace id. No spans are recorded or exported here: they are the callers' and the teacher's.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = "traceparent"
FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
VERSION = "00"
SAMPLED = "01"

_current: "ContextVar[Trace | None]" = ContextVar("trace", default=None)


@dataclass(frozen=True)
class Trace:
    """A place in a trace."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits: of whoever asks."""
    flags: str
    """Two hex digits, passed on as they came."""

    def __str__(self) -> str:
        return f"{VERSION}-{self.trace_id}-{self.span_id}-{self.flags}"

    def child(self) -> "Trace":
        """A place below this one."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags)


def begun() -> Trace:
    """A trace of its own."""
    return Trace(secrets.token_hex(16), secrets.token_hex(8), SAMPLED)


def parsed(header: str | None) -> Trace | None:
    """What a header says; None where it says nothing that W3C allows."""
    found = FORM.fullmatch((header or "").strip())
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    # Later versions may say more behind it, this one may not.
    wrong = version == "ff" or (version == VERSION and found[0].count("-") != 3)
    if wrong or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, flags)


def current() -> Trace | None:
    """Where we are; None outside of any trace."""
    return _current.get()


def outgoing() -> dict[str, str]:
    """Headers for one request to somebody else."""
    here = _current.get()
    return {} if here is None else {HEADER: str(here.child())}


@contextmanager
def under(trace: Trace | None) -> Iterator[None]:
    """What runs within belongs to this trace."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


class Tracing:
    """ASGI middleware: each request belongs to its caller's trace, or begins one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = parsed(Headers(scope=scope).get(HEADER))
        with under(given.child() if given is not None else begun()):
            await self._app(scope, receive, send)
