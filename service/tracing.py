"""The trace that a request belongs to, in W3C's form (Trace Context, level 1), from the API through
SQL to the worker and the teacher.

With `RETORT_TRACING` a request's `traceparent`, or a new one, is kept with the job that it submits;
whoever works on the job sends it to the teacher with a span id of each request's own, and JSON logs
carry its trace id. Spans are recorded by `service.spans`, where a collector takes them.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

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
    leaf: bool = False
    """Whether a request from here carries this very place, not one below it."""

    def __str__(self) -> str:
        return f"{VERSION}-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def sampled(self) -> bool:
        """Whether whoever began it records it."""
        return bool(int(self.flags, 16) & 1)

    def child(self, leaf: bool = False) -> "Trace":
        """A place below this one."""
        return Trace(self.trace_id, secrets.token_hex(8), self.flags, leaf)


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
    if here is None:
        return {}
    return {HEADER: str(here if here.leaf else here.child())}


@contextmanager
def under(trace: Trace | None) -> Iterator[None]:
    """What runs within belongs to this trace."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
