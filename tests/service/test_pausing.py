"""Pausing by hand, through service and REST, and what paused jobs may become."""

import httpx
import pytest

from service import jobs, pausing
from service.problems import Problem
from service.site import Site
from service.tables import Job, State
from tests.service.fakes import FakeBroker
from tests.service.given import add_teacher, build, spec, state_of

SERVE = {"kind": "serve", "model": "org/model", "name": "t"}


def queued_build(site: Site, seeds: str) -> str:
    add_teacher(site)
    return jobs.submit(site, spec(kind="build", build=build(seeds))).id


def test_a_queued_build_pauses_and_queues_again(site: Site, broker: FakeBroker, seeds: str) -> None:
    job_id = queued_build(site, seeds)
    pausing.pause(site, job_id)
    assert state_of(site, job_id) == (State.PAUSED, "paused_by_hand")
    broker.rung.clear()
    resumed = pausing.resume(site, job_id)
    assert (resumed.state, resumed.reason, resumed.paused_at) == (State.QUEUED, None, None)
    assert broker.rung == [("build", job_id)]
    assert resumed.paused_s >= 0


def test_what_cannot_pause_says_why(site: Site) -> None:
    job_id = jobs.submit(site, spec(**SERVE)).id
    with site.sessions.writing.begin() as session:
        session.get_one(Job, job_id).state = State.RUNNING
    with pytest.raises(Problem, match="of running jobs only builds can be paused"):
        pausing.pause(site, job_id)
    with pytest.raises(Problem, match="is running"):
        pausing.resume(site, job_id)


def test_a_paused_job_that_never_began_is_cancelled_at_once(site: Site, seeds: str) -> None:
    job_id = queued_build(site, seeds)
    pausing.pause(site, job_id)
    assert jobs.cancel(site, job_id).state == State.CANCELLED


async def test_pause_and_resume_over_rest(site: Site, api: httpx.AsyncClient, seeds: str) -> None:
    job_id = queued_build(site, seeds)
    paused = await api.post(f"/api/v1/jobs/{job_id}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    told = (await api.get(f"/api/v1/jobs/{job_id}/pauses")).json()
    assert [event["data"]["reason"] for event in told] == ["paused_by_hand"]
    assert (await api.post(f"/api/v1/jobs/{job_id}/resume")).json()["state"] == "queued"
    assert (await api.post(f"/api/v1/jobs/{job_id}/resume")).status_code == 409
