"""A request's trace reaches its jobs, their parts and the teacher; without the setting, nothing."""

import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service import chain, jobs, tracing
from service.app import create_app
from service.logs import JsonFormatter
from service.settings import Settings
from service.site import Site
from service.tables import Job
from tests.service.given import add_teacher, build, spec
from tests.service.test_turns import chat, register
from tests.workers.conftest import StubTeacher, stub

__all__ = ["stub"]

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", min_free_bytes=0, tracing=True)


@pytest.fixture
async def api(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def traces_of(site: Site) -> list[tracing.Trace | None]:
    with site.sessions.reading() as session:
        return [tracing.parsed(job.traceparent) for job in session.query(Job).order_by(Job.id)]


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (GIVEN, True),
        (f"  {GIVEN} ", True),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes", True),
        (f"{GIVEN}-more", False),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", False),
        (f"00-{'0' * 32}-{SPAN_ID}-01", False),
        (f"00-{TRACE_ID}-{'0' * 16}-01", False),
        (f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_headers_are_read_as_w3c_says(header: str | None, known: bool) -> None:
    found = tracing.parsed(header)
    assert (found is not None) == known
    assert found is None or (found.trace_id, found.span_id) == (TRACE_ID, SPAN_ID)


async def test_a_submitted_job_and_its_parts_belong_to_the_requests_trace(
    api: httpx.AsyncClient, site: Site, seeds: str
) -> None:
    add_teacher(site)
    recipe = {"kind": "recipe", "build": build(seeds)}
    made = await api.post("/api/v1/jobs", json=recipe, headers={"traceparent": GIVEN})
    chain.advance(site, made.json()["id"])
    found = traces_of(site)
    assert [trace and trace.trace_id for trace in found] == [TRACE_ID, TRACE_ID]
    assert SPAN_ID not in [trace and trace.span_id for trace in found]


async def test_a_request_without_a_trace_begins_one(
    api: httpx.AsyncClient, site: Site, seeds: str
) -> None:
    add_teacher(site)
    for _ in range(2):
        await api.post("/api/v1/jobs", json={"kind": "build", "build": build(seeds)})
    first, second = traces_of(site)
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id


async def test_a_chat_carries_the_trace_to_its_teacher(
    api: httpx.AsyncClient, site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url, None)
    api.headers["traceparent"] = GIVEN
    await chat(api)
    await chat(api)
    sent = [tracing.parsed(header) for header in stub.stats()["traceparents"]]
    assert {trace and trace.trace_id for trace in sent} == {TRACE_ID}
    assert len({trace and trace.span_id for trace in sent} | {SPAN_ID}) == 3


def test_without_the_setting_a_job_has_no_trace(site: Site, seeds: str) -> None:
    add_teacher(site)
    off = site.settings.model_copy(update={"tracing": False})
    wanted = spec(kind="build", build=build(seeds))
    jobs.submit(dataclasses.replace(site, settings=off), wanted)
    jobs.submit(site, wanted)
    off_trace, on_trace = traces_of(site)
    assert (off_trace, on_trace is None) == (None, False)


def test_json_logs_name_the_trace() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "said", (), None)
    with tracing.under(tracing.parsed(GIVEN)):
        assert json.loads(JsonFormatter().format(record))["trace_id"] == TRACE_ID
    assert "trace_id" not in json.loads(JsonFormatter().format(record))
