"""Spans of a trace, sent to an OpenTelemetry collector by OpenTelemetry's own SDK: requests to the
API, work on jobs, requests to teachers.

Recorded where the settings have `tracing` and `traces_url`, and the trace's own flag says so. What
is recorded waits in memory and goes out in the background: a collector that is away costs spans,
never time. Our own provider, not the process's: libraries that instrument themselves stay quiet.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from service import tracing
from service.settings import Settings
from service.tracing import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Span", "SpanKind", "recorded", "span", "start", "stop"]

MOST_WAITING = 20_000
"""Spans beyond it are dropped."""
EVERY_MS = 2000.0
LIMIT_S = 5.0
"""Of one lot to the collector, further attempts included."""

_provider: "TracerProvider | None" = None


def start(settings: Settings, part: str) -> None:
    """Record from now on in this process, if the settings want it. `part` is what of the service
    it is: api, worker. What the settings don't say (headers, certificates) the SDK takes from
    OTEL_EXPORTER_OTLP_… of the environment."""
    global _provider
    stop()
    if not settings.tracing or settings.traces_url is None:
        return
    # Late: few installations have it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {
        "service.name": "retort",
        "service.namespace": part,
        "service.instance.id": socket.gethostname(),
    }
    exporter = OTLPSpanExporter(endpoint=settings.traces_url, timeout=LIMIT_S)
    _provider = TracerProvider(resource=Resource.create(about))
    _provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=EVERY_MS)
    )


def stop() -> None:
    """Send what waits, and record nothing any more."""
    global _provider
    ended, _provider = _provider, None
    if ended is not None:
        ended.shutdown()


@contextmanager
def span(name: str, kind: SpanKind, **attributes: str | int) -> Iterator[Span | None]:
    """What runs within is a span of the present trace; None where none is recorded. Of a CLIENT
    span the request within carries the id."""
    here = tracing.current()
    if here is None or _provider is None or not here.sampled:
        yield None
        return
    with recorded(here, name, kind, **attributes) as found:
        yield found


@contextmanager
def recorded(
    parent: Trace | None, name: str, kind: SpanKind, **attributes: str | int
) -> Iterator[Span | None]:
    """What runs within has a place below `parent`, or begins a trace; and is a span, unless none is
    recorded: then None."""
    if _provider is None or (parent is not None and not parent.sampled):
        with tracing.under(parent.child() if parent is not None else tracing.begun()):
            yield None
        return
    tracer = _provider.get_tracer("retort")
    found = tracer.start_span(name, _context(parent), kind, attributes)
    with tracing.under(_trace(found, leaf=kind is SpanKind.CLIENT)):
        try:
            yield found
        except BaseException:
            found.set_status(StatusCode.ERROR)
            raise
        finally:
            found.end()


def _context(parent: Trace | None) -> Context:
    if parent is None:
        return Context()
    flags = TraceFlags(int(parent.flags, 16))
    place = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags)
    return set_span_in_context(NonRecordingSpan(place), Context())


def _trace(span: Span, leaf: bool) -> Trace:
    place = span.get_span_context()
    ids = format_trace_id(place.trace_id), format_span_id(place.span_id)
    return Trace(*ids, f"{place.trace_flags:02x}", leaf)
