"""Spans of a trace, sent to an OpenTelemetry collector: requests to the API, work on jobs, requests
to teachers. OTLP over HTTP in its JSON form, so nothing more is installed for it.

Recorded where the settings have `tracing` and `traces_url`, and the trace's own flag says so. What
is recorded waits in memory and goes out in the background: a collector that is away costs spans,
never time.
"""

import atexit
import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import httpx

from service import tracing
from service.settings import Settings
from service.tracing import Trace

log = logging.getLogger(__name__)

MOST_WAITING = 20_000
"""Spans beyond it push the oldest out."""
AT_ONCE = 512
EVERY_S = 2.0
LIMIT_S = 5.0
"""Of one request to the collector."""


class Kind(IntEnum):
    """OTLP's kinds of spans, as far as they are needed here."""

    SERVER = 2
    CLIENT = 3
    CONSUMER = 5


@dataclass
class Span:
    """Something that took time."""

    trace: Trace
    parent_id: str | None
    name: str
    kind: Kind
    attributes: dict[str, Any]
    began_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    failed: bool = False


class Exporter:
    """Sends spans in a thread of its own."""

    def __init__(self, url: str, part: str) -> None:
        self._url, self._part = url, part
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)
        self._stopped = threading.Event()
        self._away = False
        self._client = httpx.Client(timeout=LIMIT_S, trust_env=False)
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, span: Span) -> None:
        """Take a span that has ended."""
        self._waiting.append(span)

    def stop(self) -> None:
        """Send what waits, once."""
        self._stopped.set()
        self._thread.join(2 * LIMIT_S)

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self._send_all()
        self._send_all()
        self._client.close()

    def _send_all(self) -> None:
        while self._waiting:
            spans = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                body = json.dumps(document(spans, self._part))
                headers = {"Content-Type": "application/json"}
                self._client.post(self._url, content=body, headers=headers).raise_for_status()
                self._away = False
            except httpx.HTTPError as error:
                if not self._away:
                    log.warning("traces: %s takes no spans: %s", self._url, error)
                self._away = True
                return


_exporter: Exporter | None = None


def start(settings: Settings, part: str) -> None:
    """Record from now on in this process, if the settings want it. `part` is what of the service
    it is: api, worker."""
    global _exporter
    stop()
    if settings.tracing and settings.traces_url is not None:
        _exporter = Exporter(settings.traces_url, part)
        atexit.register(stop)


def stop() -> None:
    """Send what waits, and record nothing any more."""
    global _exporter
    ended, _exporter = _exporter, None
    if ended is not None:
        ended.stop()


@contextmanager
def span(name: str, kind: Kind, **attributes: Any) -> Iterator[Span | None]:
    """What runs within is a span of the present trace; None where none is recorded. Of a CLIENT
    span the request within carries the id."""
    here = tracing.current()
    if _exporter is None or here is None or not here.sampled:
        yield None
        return
    mine = here.child(leaf=kind is Kind.CLIENT)
    with tracing.under(mine), recorded(mine, here.span_id, name, kind, **attributes) as found:
        yield found


@contextmanager
def recorded(
    trace: Trace, parent_id: str | None, name: str, kind: Kind, **attributes: Any
) -> Iterator[Span | None]:
    """A span at a place that is there already."""
    exporter = _exporter
    if exporter is None or not trace.sampled:
        yield None
        return
    found = Span(trace, parent_id, name, kind, attributes)
    try:
        yield found
    except BaseException:
        found.failed = True
        raise
    finally:
        found.ended_ns = time.time_ns()
        exporter.put(found)


def document(spans: list[Span], part: str) -> dict[str, Any]:
    """An ExportTraceServiceRequest, as OTLP's JSON has it."""
    about = {
        "service.name": "retort",
        "service.namespace": part,
        "service.instance.id": socket.gethostname(),
    }
    scope = {"scope": {"name": "retort"}, "spans": [_as_json(one) for one in spans]}
    resource = {"attributes": _pairs(about)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _as_json(span: Span) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.trace.trace_id,
        "spanId": span.trace.span_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.began_ns),
        "endTimeUnixNano": str(span.ended_ns),
        "attributes": _pairs(span.attributes),
        "status": {"code": 2} if span.failed else {},
    }
    return found | ({"parentSpanId": span.parent_id} if span.parent_id else {})


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "value": {"intValue": str(each)}
            if isinstance(each, int)
            else {"stringValue": str(each)},
        }
        for key, each in values.items()
    ]
