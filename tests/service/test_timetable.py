from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service import jobs, timetable
from service.problems import Problem
from service.site import Site
from service.tables import Job, Run, Schedule, State, utc
from service.timetable import ScheduleSpec
from tests.service.given import add_teacher, build

START = datetime(2026, 11, 2, 12, 30, tzinfo=UTC)
SERVE = {"kind": "serve", "model": "org/model", "name": "served"}


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


def hourly(site: Site, **fields: Any) -> Schedule:
    """A schedule made at half past twelve, due at each full hour."""
    wanted = {"name": "s", "cron": "0 * * * *", "job": SERVE} | fields
    return timetable.create(site, ScheduleSpec.model_validate(wanted), START)


def found(site: Site) -> list[tuple[float, str]]:
    """Hours after the start of each slot, and what became of it; oldest first."""
    with site.sessions.reading() as session:
        runs: list[Run] = list(session.query(Run).order_by(Run.slot_utc))
    return [((utc(run.slot_utc) - START) / timedelta(hours=1), run.state) for run in runs]


def end_jobs(site: Site) -> None:
    with site.sessions.writing.begin() as session:
        session.execute(update(Job).values(state=State.SUCCEEDED))


def test_a_slot_makes_one_job_and_links_it(site: Site) -> None:
    schedule = hourly(site)
    assert timetable.tick(site, hours(0.49)) == 0
    assert timetable.tick(site, hours(0.5)) == 1
    assert timetable.tick(site, hours(0.51)) == 0
    with site.sessions.reading() as session:
        (job,) = jobs.listing(session)
        assert timetable.schedule_of(session, job.id) == schedule.id
    end_jobs(site)
    assert timetable.tick(site, hours(1.5)) == 1


def test_clocks_that_tick_at_once_run_a_slot_once(any_site: Site) -> None:
    hourly(any_site)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: timetable.tick(any_site, hours(0.5)), range(16)))
    assert found(any_site) == [(0.5, "submitted")]
    with any_site.sessions.reading() as session:
        assert len(jobs.listing(session)) == 1


def test_a_claimed_slot_whose_clock_died_is_submitted_by_the_next(site: Site) -> None:
    schedule = hourly(site)
    assert timetable._claim(site, schedule.id, hours(0.5))
    assert found(site) == [(0.5, "waiting")]
    assert timetable.tick(site, hours(0.51)) == 1
    # And one that died after the job was made, before it was noted, makes no second one.
    with site.sessions.writing.begin() as session:
        session.execute(update(Run).values(state="waiting", job_id=None))
    timetable.tick(site, hours(0.52))
    with site.sessions.reading() as session:
        assert len(jobs.listing(session)) == 1


@pytest.mark.parametrize(
    ("overlap", "then"),
    [
        ("skip", [(0.5, "submitted"), (1.5, "skipped")]),
        ("queue", [(0.5, "submitted"), (1.5, "waiting")]),
    ],
)
def test_a_slot_during_a_run_is_skipped_or_waits(
    site: Site, overlap: str, then: list[tuple[float, str]]
) -> None:
    hourly(site, overlap=overlap)
    timetable.tick(site, hours(0.5))
    assert timetable.tick(site, hours(1.5)) == 0
    assert found(site) == then
    end_jobs(site)
    assert timetable.tick(site, hours(1.6)) == (1 if overlap == "queue" else 0)


@pytest.mark.parametrize(
    ("missed", "ran"),
    [("skip", []), ("one", [3.5]), ("all", [0.5, 1.5, 2.5, 3.5])],
)
def test_slots_that_passed_while_nobody_was_up(site: Site, missed: str, ran: list[float]) -> None:
    hourly(site, missed=missed, overlap="queue")
    for _ in range(5):
        timetable.tick(site, hours(3.75))
        end_jobs(site)
    assert [slot for slot, state in found(site) if state == "submitted"] == ran
    assert [slot for slot, _ in found(site)] == [0.5, 1.5, 2.5, 3.5]
    assert timetable.tick(site, hours(4.5)) == 1  # the next slot is on time


def test_waiting_runs_have_a_bound(site: Site) -> None:
    hourly(site, cron="* * * * *", missed="all", overlap="queue")
    timetable.tick(site, START + timedelta(days=30))
    assert len(found(site)) == timetable.MOST_MISSED
    timetable.tick(site, START + timedelta(days=30, minutes=30))
    states = [state for _, state in found(site)]
    assert states.count("waiting") + states.count("submitted") <= timetable.MOST_WAITING + 1


def test_what_is_paused_is_not_due_and_not_missed(site: Site) -> None:
    hourly(site, missed="all", overlap="queue")
    timetable.pause(site, "s")
    assert timetable.tick(site, hours(2.5)) == 0
    timetable.resume(site, "s", hours(2.75))
    assert timetable.tick(site, hours(3.5)) == 1
    assert found(site) == [(3.5, "submitted")]


def test_a_run_by_hand_respects_the_one_that_goes_on(site: Site) -> None:
    hourly(site)
    assert timetable.run_now(site, "s", hours(0.1)).job_id is not None
    with pytest.raises(Problem, match="goes on"):
        timetable.run_now(site, "s", hours(0.2))
    end_jobs(site)
    timetable.pause(site, "s")
    assert timetable.run_now(site, "s", hours(0.3)).state == "submitted"


def test_a_job_that_is_refused_fails_its_slot_and_no_other(site: Site, seeds: str) -> None:
    add_teacher(site)
    hourly(site, job={"kind": "build", "build": build(seeds)})
    with site.sessions.writing.begin() as session:
        changed = session.query(Schedule).one()
        changed.spec = changed.spec | {"build": changed.spec["build"] | {"teacher": "gone"}}
    timetable.tick(site, hours(0.5))
    with site.sessions.reading() as session:
        (run,) = timetable.runs(session, changed.id)
    assert (run.state, "gone" in (run.detail or "")) == ("failed", True)
    assert timetable.tick(site, hours(1.5)) == 0
    assert len(found(site)) == 2


def test_only_builds_can_be_incremental(site: Site) -> None:
    with pytest.raises(Problem, match="builds no dataset"):
        hourly(site, incremental=True)


def test_the_time_zone_decides_when_it_is_due(site: Site) -> None:
    hourly(site, cron="0 9 * * *", time_zone="Asia/Kathmandu")
    with site.sessions.reading() as session:
        next_at = timetable.get(session, "s").next_at
    assert utc(next_at) == datetime(2026, 11, 3, 3, 15, tzinfo=UTC)


async def test_a_schedule_by_rest(api: httpx.AsyncClient, site: Site) -> None:
    wanted = {"name": "s", "cron": "0 * * * *", "time_zone": "Europe/Berlin", "job": SERVE}
    made = await api.post("/api/v1/schedules", json=wanted)
    assert (made.status_code, len(made.json()["coming"])) == (201, 5)
    assert (await api.post("/api/v1/schedules", json=wanted)).status_code == 409
    run = (await api.post("/api/v1/schedules/s/run")).json()
    assert (await api.get(f"/api/v1/jobs/{run['job_id']}")).json()["schedule_id"] == made.json()[
        "id"
    ]
    assert (await api.post("/api/v1/schedules/s/pause")).json()["coming"] == []
    assert (await api.post("/api/v1/schedules/s/resume")).json()["paused"] is False
    shown = (await api.get("/api/v1/schedules/s")).json()
    assert [each["job_id"] for each in shown["runs"]] == [run["job_id"]]
    page = (await api.get("/api/v1/schedules/s/runs", params={"state": "submitted"})).json()
    assert (len(page["runs"]), page["next"]) == (1, None)
    assert [each["id"] for each in (await api.get("/api/v1/schedules")).json()["schedules"]] == [
        made.json()["id"]
    ]
    assert (await api.delete("/api/v1/schedules/s")).status_code == 204
    assert (await api.get("/api/v1/schedules/s")).status_code == 404
    assert (await api.get(f"/api/v1/jobs/{run['job_id']}")).json()["schedule_id"] is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"time_zone": "Europe/Berln"}, "Europe/Berlin"),
        ({"missed": "all"}, "overlap: queue"),
        ({"job": {"kind": "build", "build": build("file-x")}}, "file-x"),
    ],
)
async def test_a_schedule_that_cannot_work_is_refused(
    api: httpx.AsyncClient, fields: dict[str, Any], told: str
) -> None:
    wanted = {"name": "s", "cron": "0 * * * *", "job": SERVE} | fields
    refused = await api.post("/api/v1/schedules", json=wanted)
    assert refused.status_code == 422
    assert told in refused.json()["detail"]
