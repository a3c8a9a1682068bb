"""What the pages' small forms do: each is posted as a browser would, with the page's own token."""

from pathlib import Path

import httpx

from service import keys, registry, teachers, timetable, verdicts
from service.keys import NewKey
from service.login import COOKIE
from service.site import Site
from service.tables import Job, State, now
from service.timetable import ScheduleSpec
from tests.service.dashboard import world
from tests.service.dashboard.asked import Seen, token
from tests.service.fakes import FakeTeacher
from tests.service.given import add_teacher


async def test_a_teacher_is_asked_again_and_forgotten(
    site: Site, browser: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    teacher_server.model = "another"
    csrf = {"csrf": await token(browser, "/teachers")}
    asked = await browser.post("/teachers/t/probe", data=csrf)
    assert (asked.status_code, asked.headers["location"]) == (303, "/teachers")
    assert registry.get(site, "t").probe["ok"] is False
    teacher_server.model = "m"
    await browser.post("/teachers/t/probe", data=csrf)
    assert registry.get(site, "t").probe["ok"] is True
    assert (await browser.post("/teachers/t/delete", data=csrf)).status_code == 303
    assert registry.listing(site) == []
    gone = await browser.post("/teachers/t/delete", data=csrf)
    assert (gone.status_code, gone.headers["content-type"][:9]) == (404, "text/html")


async def test_a_teachers_key_is_stored_sealed_and_shown_nowhere(
    site: Site, browser: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    form = {"csrf": await token(browser, "/teachers"), "name": "t", "base_url": teacher_server.url}
    form |= {"served_model": "m", "api_key": "very-secret-key", "gpus": "8"}
    form |= {"price_prompt": "0.25", "price_completion": "1.5", "licence": "free"}
    refused = await browser.post("/teachers", data=form | {"api_key_env": "ALSO"})
    assert (refused.status_code, "either" in refused.text) == (422, True)
    assert "0.25" in refused.text
    assert (await browser.post("/teachers", data=form)).status_code == 303
    made = registry.get(site, "t")
    assert (made.gpus, made.price_prompt, made.price_completion) == (8, 0.25, 1.5)
    assert "very-secret-key" not in str(made.api_key_sealed)
    key = teachers.registration_of(made, site.settings).api_key
    assert key is not None
    assert key.get_secret_value() == "very-secret-key"
    listed = (await browser.get("/teachers")).text
    assert "with a key" in listed
    assert "very-secret-key" not in refused.text + listed


async def test_verdicts_are_forgotten(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    dataset = world.add_dataset(site, tmp_path, world.answered(8), "stories")
    place = f"/datasets/{dataset}/verdicts"
    csrf = {"csrf": await token(browser, f"/datasets/{dataset}")}
    for row in ("story-0000", "story-0001"):
        await browser.post(place, data=csrf | {"row": row, "say": "reject"})
    with site.sessions.reading() as session:
        assert verdicts.tally(session, dataset).all == 2
    done = await browser.post(f"{place}/discard", data=csrf)
    assert (done.status_code, done.headers["location"]) == (303, f"/datasets/{dataset}")
    with site.sessions.reading() as session:
        assert verdicts.listing(session, dataset, "", 100) == []


async def test_logging_out_ends_the_session(site: Site, browser: httpx.AsyncClient) -> None:
    _, key = keys.create(site, NewKey(name="reader", scopes=("read",)))
    await browser.post("/login", data={"key": key})
    assert "Log out" in (await browser.get("/jobs")).text
    left = await browser.post("/logout")
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    assert COOKIE not in browser.cookies
    assert (await browser.get("/jobs")).headers["location"].startswith("/login")


async def test_no_button_lets_go_on_what_its_reader_may_not_submit(
    site: Site, browser: httpx.AsyncClient
) -> None:
    wanted = {"kind": "serve", "model": "org/model", "name": "served"}
    with site.sessions.writing.begin() as session:
        session.add(Job(id="job-s", kind="serve", name="s", spec=wanted, state=State.PAUSED))
    at = ScheduleSpec.model_validate({"name": "s", "cron": "0 3 * * *", "job": wanted})
    schedule = timetable.create(site, at, now()).id
    pages = {"/jobs/job-s": "/jobs/job-s/resume", "/schedules": f"/schedules/{schedule}/run"}
    for scopes in (("read", "submit"), ("read", "submit", "train")):
        _, key = keys.create(site, NewKey(name="some", scopes=scopes))
        await browser.post("/login", data={"key": key})
        for path, action in pages.items():
            seen = Seen((await browser.get(path)).text)
            actions = {given.get("action") for tag, given in seen.tags if tag == "form"}
            assert (action in actions) == ("train" in scopes)


async def test_what_is_refused_at_the_gate_is_a_page_for_a_browser(
    site: Site, browser: httpx.AsyncClient
) -> None:
    foreign = await browser.get("/jobs", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    assert "Not a name of this API" in Seen(foreign.text).text
    _, key = keys.create(site, NewKey(name="reader", scopes=("read",)))
    stranger = await browser.post("/jobs/new")
    assert (stranger.status_code, stranger.headers["www-authenticate"]) == (401, "Bearer")
    assert "Log out" not in stranger.text
    await browser.post("/login", data={"key": key})
    for refused in (await browser.get("/keys"), await browser.post("/jobs/x/cancel")):
        assert refused.status_code == 403
        assert refused.headers["content-type"].startswith("text/html")
        assert "unsafe" not in refused.headers["content-security-policy"]
        seen = Seen(refused.text).text
        assert "This needs the scope" in seen
        assert "Log out" in seen
    program = await browser.get("/api/v1/keys")
    assert program.headers["content-type"] == "application/problem+json"
    script = await browser.get("/keys", headers={"Accept": "application/json"})
    assert script.headers["content-type"] == "application/problem+json"
