"""One job's page, and what its buttons do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service import events, jobs, timetable
from service.dashboard import words
from service.site import Site
from service.tables import Job, State, now
from service.timetable import ScheduleSpec
from tests.service.dashboard.asked import Seen, token
from tests.service.given import add_file, add_teacher, build, spec, state_of
from tests.service.test_again import finished

SERVE = {"kind": "serve", "model": "org/model", "name": "served"}


def change(site: Site, job_id: str, **values: Any) -> None:
    with site.sessions.writing.begin() as session:
        job = session.get_one(Job, job_id)
        for name, value in values.items():
            setattr(job, name, value)


def links(page: str) -> dict[str, str]:
    """Addresses of a page's links."""
    return {str(given.get("href")): tag for tag, given in Seen(page).tags if tag == "a"}


def test_the_time_to_go_leaves_pauses_out() -> None:
    began = datetime.now(UTC) - timedelta(seconds=1000)
    progress = {"done": 50, "total": 100}
    assert words.remaining_s(progress, began, 0.0) == pytest.approx(1000, abs=1)
    assert words.remaining_s(progress, began, 900.0) == pytest.approx(100, abs=1)


async def test_a_page_says_how_long_work_takes_without_pauses(
    site: Site, browser: httpx.AsyncClient
) -> None:
    job = jobs.submit(site, spec(**SERVE))
    began = now() - timedelta(seconds=7200)
    progress = {"done": 50, "total": 100}
    change(site, job.id, state=State.RUNNING, started_at=began, paused_s=7140.0, progress=progress)
    assert "1 min 0 s" in (await browser.get(f"/jobs/{job.id}")).text
    ended = began + timedelta(seconds=7200)
    change(site, job.id, state=State.SUCCEEDED, finished_at=ended, paused_s=7080.0)
    assert "took 2 min 0 s" in (await browser.get(f"/jobs/{job.id}")).text


async def test_a_run_leads_back_to_its_schedule(site: Site, browser: httpx.AsyncClient) -> None:
    wanted = ScheduleSpec.model_validate({"name": "often", "cron": "0 3 * * *", "job": SERVE})
    timetable.create(site, wanted, now())
    run = timetable.run_now(site, "often", now())
    alone = jobs.submit(site, spec(**SERVE | {"name": "alone"}))
    page = (await browser.get(f"/jobs/{run.job_id}")).text
    assert f"/schedules/{run.schedule_id}" in links(page)
    assert "often" in Seen(page).text
    assert "/schedules/" not in (await browser.get(f"/jobs/{alone.id}")).text
    listed = (await browser.get("/schedules")).text
    assert ("tr", run.schedule_id) in {(tag, given.get("id")) for tag, given in Seen(listed).tags}


async def test_batches_are_found_and_lead_to_their_files(
    site: Site, browser: httpx.AsyncClient
) -> None:
    file = add_file(site, "{}\n")
    job = jobs.submit(site, spec(kind="batch", input=file))
    listed = (await browser.get("/jobs?kind=batch")).text
    assert job.id in listed
    assert "<option selected>batch</option>" in listed
    result = {"output_file": "file-out", "error_file": "file-err"}
    change(site, job.id, state=State.SUCCEEDED, result=result)
    found = links((await browser.get(f"/jobs/{job.id}")).text)
    assert {f"/api/v1/files/{one}/content" for one in ("file-out", "file-err", file)} <= set(found)


async def test_the_divergence_has_the_reports_name(site: Site, browser: httpx.AsyncClient) -> None:
    job = jobs.submit(site, spec(**SERVE))
    with site.sessions.writing.begin() as session:
        report = {"index": 0, "kind": "svd", "passed": True, "kl_from_source": 0.5}
        events.emit(session, job.id, "stage", {"index": 0, "kind": "svd", "report": report})
    assert "KL from source, nats" in (await browser.get(f"/jobs/{job.id}")).text


async def test_a_build_is_paused_and_resumed(
    site: Site, browser: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    job = jobs.submit(site, spec(kind="build", build=build(seeds)))
    csrf = {"csrf": await token(browser, f"/jobs/{job.id}")}
    for action, state in (("pause", State.PAUSED), ("resume", State.QUEUED)):
        done = await browser.post(f"/jobs/{job.id}/{action}", data=csrf)
        assert (done.status_code, done.headers["location"]) == (303, f"/jobs/{job.id}")
        assert state_of(site, job.id)[0] == state
    refused = await browser.post(f"/jobs/{job.id}/resume", data=csrf)
    assert (refused.status_code, "isn&#39;t paused" in refused.text) == (409, True)
    assert (await browser.post(f"/jobs/{job.id}/retry", data=csrf)).status_code == 409


async def test_rejected_rows_are_asked_again(
    site: Site, browser: httpx.AsyncClient, seeds: str
) -> None:
    job_id = finished(site, seeds)
    csrf = {"csrf": await token(browser, "/jobs/new")}
    sent = await browser.post(f"/jobs/{job_id}/retry", data=csrf)
    assert sent.status_code == 303
    again = sent.headers["location"].removeprefix("/jobs/")
    with site.sessions.reading() as session:
        assert session.get_one(Job, again).name == "dataset-retry"


async def test_no_proxy_holds_news_back(site: Site, browser: httpx.AsyncClient) -> None:
    job = jobs.submit(site, spec(**SERVE))
    jobs.cancel(site, job.id)
    news = await browser.get(f"/jobs/{job.id}/stream")
    assert news.headers["x-accel-buffering"] == "no"
    assert news.headers["cache-control"] == "no-store"
