from datetime import timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import events, jobs, metrics
from service.metrics import registry_of
from service.site import Site
from service.tables import Chunk, Job, State, now
from tests.service.given import add_teacher, spec

SERVE = {"kind": "serve", "model": "org/model", "name": "served"}


def read(site: Site) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in registry_of(site).collect()
        for sample in family.samples
    }


def fill(site: Site) -> None:
    add_teacher(site)
    job = jobs.submit(site, spec(**SERVE))
    with site.sessions.writing.begin() as session:
        row = session.get_one(Job, job.id)
        row.created_at = now() - timedelta(minutes=5)
        ended = {"state": State.SUCCEEDED, "name": "x", "spec": {}, "kind": "train"}
        times = {"started_at": now() - timedelta(seconds=90), "finished_at": now()}
        session.add(Job(id="job-1", **ended, **times))
        session.flush()
        for number in (0, 1):
            counts = {"accepted": 5, "rejected": 2, "prompt_tokens": 100, "completion_tokens": 30}
            place = {"job_id": "job-1", "number": number, "first_row": 0, "rows": 7, "offset": 0}
            session.add(Chunk(**place, **counts, requests=7, teacher_seconds=1.5))


def test_what_sql_knows(any_site: Site) -> None:
    fill(any_site)
    found = read(any_site)
    assert found["retort_jobs", ("serve", "queued")] == 1
    assert found["retort_jobs", ("train", "succeeded")] == 1
    assert 300 <= found["retort_queue_age_seconds", ("serve",)] < 400
    assert 89 < found["retort_device_seconds_total", ("train",)] < 92
    assert found["retort_rows_total", ("accepted",)] == 10
    assert found["retort_rows_total", ("rejected",)] == 4
    assert found["retort_tokens_total", ("completion",)] == 60
    assert found["retort_teacher_requests_total", ()] == 14
    assert found["retort_teacher_seconds_total", ()] == 3
    assert found["retort_teacher_up", ("t",)] == 1


def test_what_teachers_do(any_site: Site) -> None:
    asked = {"kind": "build", "name": "x", "spec": {"build": {"teacher": "t"}}}
    progress = {"in_flight": 12, "completion_tokens_per_s": 80.5}
    with any_site.sessions.writing.begin() as session:
        session.add(Job(id="job-1", state=State.RUNNING, **asked))
        session.flush()
        events.emit(session, "job-1", "progress", progress)
        place = {"job_id": "job-1", "number": 0, "first_row": 0, "rows": 7, "offset": 0}
        session.add(Chunk(**place, requests=4, teacher_seconds=2.0))
    found = read(any_site)
    assert found["retort_teacher_in_flight", ("t",)] == 12
    assert found["retort_teacher_tokens_per_second", ("t",)] == 80.5
    assert found["retort_teacher_request_seconds", ("t",)] == 0.5


def test_seconds_on_the_device_are_those_of_its_work(any_site: Site) -> None:
    began = now() - timedelta(hours=1)

    def add(kind: str, state: State, **fields: Any) -> None:
        told = {"kind": kind, "state": state, "name": "x", "spec": {}, "started_at": began}
        with any_site.sessions.writing.begin() as session:
            session.add(Job(id=f"job-{kind}-{state}", **told | fields))

    half = began + timedelta(minutes=30)
    add("train", State.SUCCEEDED, finished_at=half, paused_s=600.0)
    add("train", State.RUNNING, paused_s=3000.0)
    add("train", State.PAUSED, paused_at=began + timedelta(minutes=2), paused_s=20.0)
    add("serve", State.CANCELLED, paused_at=began + timedelta(minutes=5), finished_at=half)
    add("compress", State.QUEUED, started_at=None)
    add("build", State.RUNNING)
    found = read(any_site)
    name = "retort_device_seconds_total"
    assert found[name, ("train",)] == pytest.approx(1200 + 600 + 100, abs=5)
    assert found[name, ("serve",)] == pytest.approx(300, abs=1)
    assert {labels for told, labels in found if told == name} == {("train",), ("serve",)}


def test_what_batches_took(any_site: Site) -> None:
    fill(any_site)
    big = 2**31
    with any_site.sessions.writing.begin() as session:
        for number, progress in enumerate(
            ({}, {"completed": 3, "failed": 1, "tokens": 50}, {"completed": 2, "tokens": big})
        ):
            told = {"kind": "batch", "state": State.RUNNING, "name": "x", "spec": {}}
            session.add(Job(id=f"job-b{number}", progress=progress, **told))
    found = read(any_site)
    assert found["retort_tokens_total", ("prompt",)] == 200
    assert found["retort_tokens_total", ("completion",)] == 60
    assert found["retort_batch_tokens_total", ()] == 50 + big
    assert found["retort_batch_requests_total", ("completed",)] == 5
    assert found["retort_batch_requests_total", ("failed",)] == 1


async def test_a_scrape_reads_sql_once_in_a_while(
    api: httpx.AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await api.get("/metrics")
    assert first.headers["content-type"].startswith("text/plain")
    assert "retort_rows_total" in {
        sample.name
        for family in text_string_to_metric_families(first.text)
        for sample in family.samples
    }
    fill(site)
    assert 'kind="serve"' not in (await api.get("/metrics")).text
    monkeypatch.setattr(metrics, "LASTS_S", -1.0)
    assert 'retort_jobs{kind="serve",state="queued"} 1.0' in (await api.get("/metrics")).text
