"""What Celery calls works within the job's trace: the teacher is told it."""

from collections.abc import Iterator

import pytest

from service import tracing
from service.site import Site
from service.tables import Job, State
from tests.workers.conftest import StubTeacher, get_job, register, submit, sums
from workers import tasks

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def called(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Tasks open the installation that the environment names."""
    monkeypatch.setenv("RETORT_DATA_DIR", str(site.settings.data_dir))
    tasks.site.cache_clear()
    yield monkeypatch
    tasks.site().sessions.engine.dispose()
    tasks.site.cache_clear()


@pytest.mark.parametrize("on", [True, False])
def test_a_builds_requests_carry_its_trace(
    site: Site, stub: StubTeacher, called: pytest.MonkeyPatch, on: bool
) -> None:
    called.setenv("RETORT_TRACING", str(on))
    register(site, stub.url)
    job_id = submit(site, sums(6))
    with site.sessions.writing.begin() as session:
        session.get_one(Job, job_id).traceparent = GIVEN
    tasks.drain(job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    sent = [tracing.parsed(header) for header in stub.stats()["traceparents"]]
    assert {trace and trace.trace_id for trace in sent} == ({GIVEN[3:35]} if on else set())
    assert len({trace and trace.span_id for trace in sent}) == (6 if on else 0)
    assert tracing.current() is None
