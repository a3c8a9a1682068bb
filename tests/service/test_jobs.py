from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from service import events, jobs
from service.problems import Problem
from service.site import Site
from service.spec import JobSpec
from service.tables import Job, State
from tests.service.fakes import FakeBroker
from tests.service.given import spec, state_of
from workers.lease import claim_job

SERVE: JobSpec = spec(kind="serve", model="org/model", name="t")
OTHER: JobSpec = spec(kind="serve", model="org/model", name="u")


def claimed(site: Site, job_id: str, owner: str = "w") -> int:
    with site.sessions.writing() as session:
        lease = claim_job(session, job_id, owner, slots=9)
    assert lease is not None
    return lease.epoch


def told(site: Site, job_id: str) -> list[tuple[str, str | None]]:
    with site.sessions.reading() as session:
        return [(event.type, event.data.get("state")) for event in events.since(session, job_id)]


def test_a_job_is_submitted_claimed_and_finished(any_site: Site, broker: FakeBroker) -> None:
    job = jobs.submit(any_site, SERVE)
    assert state_of(any_site, job.id) == ("queued", None)
    assert broker.rung == [("serve", job.id)]

    epoch = claimed(any_site, job.id)
    with any_site.sessions.writing.begin() as session:
        ended = jobs.finish(session, job.id, epoch, State.SUCCEEDED, result={"model": "x"})

    assert ended
    assert told(any_site, job.id) == [
        ("state", "queued"),
        ("state", "running"),
        ("state", "succeeded"),
    ]
    with any_site.sessions.reading() as session:
        row = jobs.get(session, job.id)
        assert (row.state, row.result, row.attempts) == ("succeeded", {"model": "x"}, 1)
        assert row.finished_at is not None


def test_a_zombie_cannot_finish_a_job(any_site: Site) -> None:
    job = jobs.submit(any_site, SERVE)
    epoch = claimed(any_site, job.id)
    for stale in (epoch - 1, epoch + 1):
        with any_site.sessions.writing.begin() as session:
            assert not jobs.finish(session, job.id, stale, State.FAILED)
    assert state_of(any_site, job.id) == ("running", None)


def test_a_job_ends_once(any_site: Site) -> None:
    job = jobs.submit(any_site, SERVE)
    epoch = claimed(any_site, job.id)
    with any_site.sessions.writing.begin() as session:
        assert jobs.finish(session, job.id, epoch, State.SUCCEEDED)
    with any_site.sessions.writing.begin() as session:
        assert not jobs.finish(session, job.id, epoch, State.FAILED, reason="crashed")
    assert state_of(any_site, job.id) == ("succeeded", None)


def test_a_key_makes_one_job(any_site: Site) -> None:
    first = jobs.submit(any_site, SERVE, idempotency_key="k")
    assert jobs.submit(any_site, SERVE, idempotency_key="k").id == first.id
    assert jobs.submit(any_site, SERVE).id != first.id


def test_a_key_used_for_another_spec_is_refused(any_site: Site) -> None:
    jobs.submit(any_site, SERVE, idempotency_key="k")
    with pytest.raises(Problem) as raised:
        jobs.submit(any_site, OTHER, idempotency_key="k")
    assert raised.value.status == 422


def test_a_key_sent_many_times_at_once_makes_one_job(any_site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        submit = partial(jobs.submit, any_site, SERVE, idempotency_key="k")
        made = [future.result().id for future in [pool.submit(submit) for _ in range(4)]]
    assert len(set(made)) == 1


def test_a_queued_job_is_cancelled_at_once(any_site: Site) -> None:
    job = jobs.submit(any_site, SERVE)
    assert jobs.cancel(any_site, job.id).state == State.CANCELLED
    assert told(any_site, job.id)[-1] == ("state", "cancelled")


def test_a_running_job_is_told_to_stop_and_told_once(any_site: Site, broker: FakeBroker) -> None:
    job = jobs.submit(any_site, SERVE)
    claimed(any_site, job.id)
    broker.rung.clear()

    jobs.cancel(any_site, job.id)
    cancelled = jobs.cancel(any_site, job.id)

    assert (cancelled.state, cancelled.cancel_requested) == ("running", True)
    assert [type for type, _ in told(any_site, job.id)].count("cancel_requested") == 1
    assert ("serve", job.id) in broker.rung


def test_an_ended_job_is_left_as_it_is(any_site: Site) -> None:
    job = jobs.submit(any_site, SERVE)
    epoch = claimed(any_site, job.id)
    with any_site.sessions.writing.begin() as session:
        jobs.finish(session, job.id, epoch, State.FAILED, reason="crashed")
    assert jobs.cancel(any_site, job.id).state == "failed"
    assert state_of(any_site, job.id) == ("failed", "crashed")


def test_a_recipe_takes_its_parts_with_it(site: Site) -> None:
    parent = jobs.submit(site, SERVE)
    child = jobs.submit(site, OTHER, parent_id=parent.id, part="serve")
    jobs.cancel(site, parent.id)
    assert state_of(site, child.id) == ("cancelled", "cancelled")


def test_a_broker_that_is_away_loses_no_job(site: Site, broker: FakeBroker) -> None:
    broker.away = True
    job = jobs.submit(site, SERVE)
    assert state_of(site, job.id) == ("queued", None)


def test_jobs_are_listed_newest_first_in_pages(any_site: Site) -> None:
    made = [jobs.submit(any_site, SERVE).id for _ in range(5)]
    jobs.cancel(any_site, made[0])
    with any_site.sessions.reading() as session:
        first = jobs.listing(session, limit=3)
        rest = jobs.listing(session, before=first[-1].id)
        queued = jobs.listing(session, state=State.QUEUED)
        assert jobs.listing(session, kind="build") == []
    assert {job.id for job in first + rest} == set(made)
    assert [job.id for job in first + rest] == sorted(made, reverse=True)
    assert made[0] not in {job.id for job in queued}
    assert len(queued) == 4


def test_an_unknown_job_is_not_found(site: Site) -> None:
    with pytest.raises(Problem, match="no job 'job-x'"), site.sessions.reading() as session:
        jobs.get(session, "job-x")


def test_events_of_one_job_are_read_from_where_a_follower_was(any_site: Site) -> None:
    job, other = jobs.submit(any_site, SERVE), jobs.submit(any_site, OTHER)
    with any_site.sessions.writing.begin() as session:
        for step in range(3):
            events.emit(session, job.id, "step", {"step": step})
        events.emit(session, other.id, "step", {"step": 9})
    with any_site.sessions.reading() as session:
        seen = events.since(session, job.id, limit=2)
        rest = events.since(session, job.id, after_id=seen[-1].id)
        assert events.final(session, job.id) is None
    assert [event.data.get("step") for event in seen + rest] == [None, 0, 1, 2]


def test_the_spec_is_stored_as_submitted(site: Site) -> None:
    job = jobs.submit(site, SERVE)
    with site.sessions.reading() as session:
        assert jobs.spec_of(session.get_one(Job, job.id)) == SERVE
