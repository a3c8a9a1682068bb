"""Spans reach a collector: the API's, the worker's, and one of each request to the teacher, each
below the one before. The collector is a FAKE that keeps what it is sent."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanKind

from service import spans, tracing
from service.app import create_app
from service.settings import Settings
from service.site import Site
from service.tables import State
from tests.workers.conftest import StubTeacher, get_job, new_site, register, sums, upload
from workers import tasks

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROWS = 6


@dataclass
class Collector:
    """What was sent, span by span."""

    url: str = ""
    sent: list[Span] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.parts.add(about["service.namespace"])
            for scope in resource.scope_spans:
                self.sent += scope.spans

    def of(self, kind: int) -> list[Span]:
        return [one for one in self.sent if one.kind == kind]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/x-protobuf"
            found.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        yield found
        server.shutdown()
    spans.stop()


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Iterator[Site]:
    """An installation that tasks find by the environment."""
    site = new_site(tmp_path / "data", min_free_bytes=0, tracing=True, traces_url=collector.url)
    monkeypatch.setenv("RETORT_DATA_DIR", str(site.settings.data_dir))
    monkeypatch.setenv("RETORT_TRACING", "true")
    tasks.site.cache_clear()
    yield site
    tasks.site().sessions.engine.dispose()
    tasks.site.cache_clear()
    site.sessions.engine.dispose()


def opened(site: Site, traceparent: str) -> httpx.AsyncClient:
    """A client of the API, whose requests belong to a trace."""
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    headers = {"traceparent": traceparent}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


async def submitted(site: Site, traceparent: str) -> str:
    """A build, submitted to the API; its id."""
    job = {"kind": "cot", "teacher": "stub", "seeds": upload(site, sums(ROWS))}
    async with opened(site, traceparent) as client:
        await client.get("/healthz")
        made = await client.post("/api/v1/jobs", json={"kind": "build", "build": job})
        assert made.status_code == 202, made.text
        shown = await client.get(f"/api/v1/jobs/{made.json()['id']}")
        assert shown.status_code == 200
    return str(made.json()["id"])


def test_spans_of_a_build_hang_together(
    traced: Site, stub: StubTeacher, collector: Collector
) -> None:
    register(traced, stub.url)
    spans.start(traced.settings, "api")
    job_id = asyncio.run(submitted(traced, GIVEN))
    spans.start(traced.settings, "worker")
    tasks.drain(job_id)
    spans.stop()

    assert get_job(traced, job_id).state == State.SUCCEEDED
    assert collector.parts == {"api", "worker"}
    given = tracing.parsed(GIVEN)
    assert given is not None
    assert {one.trace_id.hex() for one in collector.sent} == {given.trace_id}
    server, later = collector.of(Span.SPAN_KIND_SERVER)
    (work,) = collector.of(Span.SPAN_KIND_CONSUMER)
    assert (server.parent_span_id.hex(), server.name) == (given.span_id, "POST /api/v1/jobs")
    assert later.name == "GET /api/v1/jobs/{job_id}"
    facts = {one.key: one.value for one in server.attributes}
    assert facts["http.response.status_code"].int_value == 202
    assert (work.parent_span_id, work.name) == (server.span_id, "work on build")
    asked = collector.of(Span.SPAN_KIND_CLIENT)
    assert len(asked) == ROWS
    assert {one.parent_span_id for one in asked} == {work.span_id}
    # What the teacher is told is the span that stands for its request.
    told = [tracing.parsed(header) for header in stub.stats()["traceparents"]]
    assert {one.span_id for one in told if one} == {one.span_id.hex() for one in asked}
    for one in collector.sent:
        assert 0 < one.start_time_unix_nano <= one.end_time_unix_nano


@pytest.mark.slow
async def test_a_request_is_named_by_its_route_whatever_ids_it_has(
    traced: Site, collector: Collector
) -> None:
    """Such as one that the path's own words begin with."""
    spans.start(traced.settings, "api")
    async with opened(traced, GIVEN) as api:
        for path in (
            "/api/v1/datasets/d",
            "/api/v1/models/a/lineage",
            "/v1/files/f/content",
            "/no",
        ):
            await api.get(path)
    spans.stop()
    assert [one.name for one in collector.sent] == [
        "GET /api/v1/datasets/{reference}",
        "GET /api/v1/models/{reference}/lineage",
        "GET /v1/files/{file_id}/content",
        "GET",
    ]


def test_what_the_caller_does_not_record_is_not_recorded(
    traced: Site, stub: StubTeacher, collector: Collector
) -> None:
    register(traced, stub.url)
    spans.start(traced.settings, "api")
    job_id = asyncio.run(submitted(traced, f"{GIVEN[:-2]}00"))
    tasks.drain(job_id)
    spans.stop()
    assert collector.sent == []
    assert get_job(traced, job_id).state == State.SUCCEEDED


@pytest.mark.slow
def test_a_collector_that_is_away_costs_spans_only(traced: Site, stub: StubTeacher) -> None:
    register(traced, stub.url)
    away = traced.settings.model_copy(update={"traces_url": "http://127.0.0.1:9/v1/traces"})
    spans.start(away, "worker")
    job_id = asyncio.run(submitted(traced, GIVEN))
    tasks.drain(job_id)
    spans.stop()
    assert get_job(traced, job_id).state == State.SUCCEEDED


def test_without_the_settings_nothing_is_recorded() -> None:
    spans.start(Settings(traces_url="http://127.0.0.1:9"), "api")
    with tracing.under(tracing.parsed(GIVEN)), spans.span("x", SpanKind.CLIENT) as found:
        assert found is None


def test_a_failure_is_marked_and_a_request_of_nobodys_begins_a_trace(collector: Collector) -> None:
    def fail() -> None:
        with spans.recorded(None, "GET", SpanKind.SERVER):
            here.append(tracing.current())
            raise ValueError("told to fail")

    here: list[tracing.Trace | None] = []
    spans.start(Settings(tracing=True, traces_url=collector.url), "api")
    with pytest.raises(ValueError, match="told to fail"):
        fail()
    spans.stop()
    (one,), (place,) = collector.sent, here
    assert place is not None
    assert (one.trace_id.hex(), one.span_id.hex()) == (place.trace_id, place.span_id)
    assert (one.parent_span_id, one.status.code) == (b"", 2)
    assert tracing.current() is None
