"""Pausing by hand, through service and REST, and what paused jobs may become."""

from typing import Any

import httpx
import pytest

from service import events, jobs, pausing, reconcile
from service.problems import Problem
from service.site import Site
from service.tables import Job, State
from tests.service.fakes import FakeBroker
from tests.service.given import add_teacher, build, spec, state_of
from workers.lease import claim_job

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
    with pytest.raises(Problem, match="of running jobs only builds, trainings and compressions"):
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


@pytest.mark.parametrize("kind", ["train", "compress"])
def test_a_running_training_is_asked_to_pause(any_site: Site, kind: str) -> None:
    add_job(any_site, kind, State.RUNNING)
    asked = pausing.pause(any_site, "job-1")
    assert (asked.state, asked.pause_requested) == (State.RUNNING, True)
    assert pausing.pause(any_site, "job-1").pause_requested  # Once more changes nothing.
    withdrawn = pausing.resume(any_site, "job-1")
    assert (withdrawn.state, withdrawn.pause_requested) == (State.RUNNING, False)
    with any_site.sessions.reading() as session:
        kinds = [event.type for event in events.since(session, "job-1", 0)]
    assert kinds == ["pause_requested", "pause_withdrawn"]


def test_a_job_whose_worker_died_before_it_could_pause_is_paused_by_the_tick(
    site: Site, broker: FakeBroker
) -> None:
    add_job(site, "train", State.QUEUED, pause_requested=True)
    with site.sessions.writing() as session:
        assert claim_job(session, "job-1", "me") is None
    assert reconcile.tick(site) == 0
    assert state_of(site, "job-1") == (State.PAUSED, "paused_by_hand")
    assert pausing.resume(site, "job-1").state == State.QUEUED
    with site.sessions.writing() as session:
        assert claim_job(session, "job-1", "me") is not None


def test_a_recipe_pauses_with_its_training(site: Site) -> None:
    add_job(site, "recipe", State.RUNNING, "job-0")
    add_job(site, "train", State.RUNNING, parent_id="job-0")
    pausing.pause(site, "job-0")
    with site.sessions.writing.begin() as session:
        assert session.get_one(Job, "job-1").pause_requested
        assert pausing.rest(session, 0, "job-1")
    assert pausing.resume(site, "job-0").state == State.RUNNING
    assert state_of(site, "job-1") == (State.QUEUED, None)


def test_cancelling_comes_before_pausing(site: Site) -> None:
    add_job(site, "train", State.RUNNING)
    pausing.pause(site, "job-1")
    jobs.cancel(site, "job-1")
    with site.sessions.writing.begin() as session:
        assert not pausing.rest(session, 0, "job-1")


def add_job(site: Site, kind: str, state: State, name: str = "job-1", **fields: Any) -> None:
    spec: dict[str, Any] = {"kind": kind}
    with site.sessions.writing.begin() as session:
        session.add(Job(id=name, kind=kind, name="n", spec=spec, state=state, **fields))
