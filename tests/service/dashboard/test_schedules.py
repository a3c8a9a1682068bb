"""The page of schedules: what it makes is the same as what the API makes."""

import re

import httpx
import pytest
import yaml

from service import keys, timetable
from service.dashboard import schedules as schedules_page
from service.keys import NewKey, Scope
from service.site import Site
from service.tables import Run, Schedule, now
from service.timetable import ScheduleSpec
from tests.service.dashboard.asked import Seen, token
from tests.service.given import add_teacher, build

SERVE = {"kind": "serve", "model": "org/model", "name": "served"}
FORM = {"name": "s", "cron": "0 3 * * *", "time_zone": "UTC"}


async def log_in(site: Site, browser: httpx.AsyncClient, *scopes: Scope) -> str:
    """A session of a new key; the key's id."""
    key, shown = keys.create(site, NewKey(name="k", scopes=scopes))
    assert (await browser.post("/login", data={"key": shown})).status_code == 303
    return key.id


def kept(site: Site) -> Schedule | None:
    with site.sessions.reading() as session:
        return next(iter(timetable.listing(session, None, 1)), None)


async def test_what_the_page_makes_is_under_the_limits_of_its_key(
    site: Site, browser: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    key_id = await log_in(site, browser, "read", "submit")
    job = yaml.safe_dump({"kind": "build", "build": build(seeds)})
    csrf = await token(browser, "/schedules")
    made = await browser.post("/schedules", data=FORM | {"csrf": csrf, "yaml": job})
    assert made.status_code == 303
    schedule = kept(site)
    assert schedule is not None
    assert schedule.key_id == key_id


async def test_a_session_runs_no_schedule_whose_job_it_may_not_submit(
    site: Site, browser: httpx.AsyncClient
) -> None:
    wanted = ScheduleSpec.model_validate({"name": "s", "cron": "0 3 * * *", "job": SERVE})
    timetable.create(site, wanted, now())
    await log_in(site, browser, "read", "submit")
    csrf = await token(browser, "/schedules")
    for action in ("run", "resume"):
        refused = await browser.post(f"/schedules/s/{action}", data={"csrf": csrf})
        assert (refused.status_code, "scope" in refused.text) == (403, True)
    await log_in(site, browser, "read", "submit", "train")
    csrf = await token(browser, "/schedules")
    assert (await browser.post("/schedules/s/run", data={"csrf": csrf})).status_code == 303


async def test_a_schedule_is_run_paused_resumed_and_deleted(
    site: Site, browser: httpx.AsyncClient
) -> None:
    wanted = ScheduleSpec.model_validate({"name": "s", "cron": "0 3 * * *", "job": SERVE})
    schedule_id = timetable.create(site, wanted, now()).id
    csrf = {"csrf": await token(browser, "/schedules")}
    for action, paused in (("pause", True), ("resume", False)):
        done = await browser.post(f"/schedules/s/{action}", data=csrf)
        assert (done.status_code, done.headers["location"]) == (303, "/schedules")
        schedule = kept(site)
        assert schedule is not None
        assert schedule.paused is paused
    assert (await browser.post("/schedules/s/run", data=csrf)).status_code == 303
    with site.sessions.reading() as session:
        (run,) = timetable.runs(session, schedule_id)
    assert run.state == "submitted"
    assert (await browser.post("/schedules/s/delete", data=csrf)).status_code == 303
    assert kept(site) is None
    assert (await browser.get("/schedules/s")).status_code == 404
    assert (await browser.post("/schedules/s/delete", data=csrf)).status_code == 404


async def test_the_page_says_what_runs_how_and_why_a_slot_was_not_run(
    site: Site, browser: httpx.AsyncClient
) -> None:
    wanted = {"name": "s", "cron": "0 3 * * *", "job": SERVE, "overlap": "queue", "missed": "all"}
    schedule_id = timetable.create(site, ScheduleSpec.model_validate(wanted), now()).id
    with site.sessions.writing.begin() as session:
        for minute, state, why in ((1, "skipped", "nobody was <up>"), (2, "failed", "no teacher")):
            slot = now().replace(minute=minute)
            run = Run(schedule_id=schedule_id, slot_utc=slot, state=state, detail=why)
            session.add(run)
    seen = Seen((await browser.get("/schedules")).text).text
    for words in (
        "nobody was <up>",
        "no teacher",
        "serve",
        "org/model",
        "runs wait",
        "one run each",
    ):
        assert words in seen.split("Make a schedule")[0], words


async def test_fields_that_contradict_each_other_come_back_beside_the_form(
    browser: httpx.AsyncClient,
) -> None:
    form = FORM | {"csrf": await token(browser, "/schedules"), "yaml": yaml.safe_dump(SERVE)}
    refused = await browser.post("/schedules", data=form | {"missed": "all"})
    assert (refused.status_code, "needs overlap: queue" in refused.text) == (422, True)


async def test_a_schedules_own_page_has_all_its_runs(
    site: Site, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ScheduleSpec.model_validate({"name": "s", "cron": "0 3 * * *", "job": SERVE})
    schedule_id = timetable.create(site, wanted, now()).id
    with site.sessions.writing.begin() as session:
        for minute in range(8):
            slot = now().replace(minute=minute)
            why = {"state": "skipped", "detail": f"why-{minute}"}
            session.add(Run(schedule_id=schedule_id, slot_utc=slot, **why))
    monkeypatch.setattr(schedules_page, "PAGE", 6)
    first = (await browser.get(f"/schedules/{schedule_id}")).text
    more = re.search(r'rel="next" href="([^"]+)"', first)
    assert more is not None
    second = (await browser.get(f"/schedules/{schedule_id}{more[1]}")).text
    shown = [sorted(set(re.findall(r"why-\d", text))) for text in (second, first)]
    assert shown == [["why-0", "why-1"], [f"why-{minute}" for minute in range(2, 8)]]
