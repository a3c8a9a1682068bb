"""Every page, asked as a browser asks, without one."""

import re
from pathlib import Path

import httpx
import pytest
import yaml

from service import artifacts, keys, login
from service.dashboard import fields
from service.dashboard.page import templates
from service.keys import NewKey
from service.login import COOKIE
from service.site import Site
from service.tables import State
from tests.service.dashboard import world
from tests.service.dashboard.addresses import addresses
from tests.service.dashboard.asked import Seen, token
from tests.service.given import add_teacher, build, state_of


@pytest.mark.slow
async def test_no_page_lets_text_become_markup(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    ids, cookie = world.add_key(site, world.fill(site, tmp_path))
    browser.cookies.set(COOKIE, cookie)
    shown = 0
    for path in [*addresses(ids), f"/jobs/new?copy_of={ids['build']}"]:
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith("text/html"), path
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        seen = Seen(answer.text)
        assert not {"iframe", "img", "style"} & {tag for tag, _ in seen.tags}, path
        for tag, attributes in seen.tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes), path
            assert tag != "script" or str(attributes["src"]).startswith("/static/"), path
            assert "javascript:" not in str(attributes.get("href")), path
        shown += sum(payload in seen.text for payload in world.XSS)
    assert shown > 20


async def test_an_empty_installation_says_what_to_do(browser: httpx.AsyncClient) -> None:
    for path, advice in {
        "/": "Register a teacher",
        "/jobs": "Start one",
        "/datasets": "start a build",
        "/models": "Train a student",
        "/teachers": "retort serve",
        "/keys": "everybody on it may do everything",
    }.items():
        assert advice in (await browser.get(path)).text


async def test_a_problem_is_a_page(browser: httpx.AsyncClient) -> None:
    for path in ("/jobs/job-none", "/datasets/none", "/models/none", "/jobs/new?copy_of=none"):
        answer = await browser.get(path)
        assert answer.status_code == 404
        assert "There is no" in answer.text
    assert (await browser.get("/jobs/job-none/stream")).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["/jobs/new", "/jobs/new/check", "/jobs/x/cancel", "/teachers", "/keys", "/files?name=a"],
)
async def test_a_form_without_its_token_is_refused(browser: httpx.AsyncClient, path: str) -> None:
    await browser.get("/")
    for data in ({}, {"csrf": "wrong"}):
        answer = await browser.post(path, data=data)
        assert answer.status_code == 403
        assert "forged" in answer.text
    assert (await browser.post(path, headers={"X-CSRF-Token": "wrong"})).status_code == 403


async def test_a_job_is_sent_from_the_form(
    site: Site, browser: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    csrf = await token(browser, "/jobs/new")
    form = {
        "csrf": csrf,
        "edited": "form",
        "yaml": yaml.safe_dump(fields.STARTS["cot"] | {"note": 1}),
        "f.build.name": "mine",
        "f.build.teacher": "t",
        "f.build.seeds": seeds,
        "f.build.limit": "2",
    }
    checked = (await browser.post("/jobs/new/check", data=form)).text
    assert "note" in Seen(checked).text, "what only the YAML says is kept"
    form["yaml"] = yaml.safe_dump(fields.STARTS["cot"])
    checked = (await browser.post("/jobs/new/check", data=form)).text
    assert "It can run." in checked
    assert 'id="yaml"' in checked
    text = yaml.safe_dump({"kind": "build", "build": build(seeds, name="mine")})
    sent = await browser.post("/jobs/new", data={"csrf": csrf, "yaml": text, "key": "k"})
    again = await browser.post("/jobs/new", data={"csrf": csrf, "yaml": text, "key": "k"})
    assert sent.status_code == 303
    assert again.headers["location"] == sent.headers["location"]
    job_id = sent.headers["location"].rpartition("/")[2]
    assert state_of(site, job_id)[0] == State.QUEUED
    cancelled = await browser.post(f"/jobs/{job_id}/cancel", data={"csrf": csrf})
    assert cancelled.status_code == 303
    assert state_of(site, job_id)[0] == State.CANCELLED


async def test_what_is_wrong_stands_beside_the_form_with_its_place(
    browser: httpx.AsyncClient,
) -> None:
    csrf = await token(browser, "/jobs/new")
    for text, words in {
        "kind: [": "YAML",
        "kind: build\nbuild: {kind: cot, teacher: t}": "build.seeds",
        "kind: build\nbuild: {kind: cot, teacher: t, seeds: file-none}": "file-none",
    }.items():
        checked = await browser.post(
            "/jobs/new/check", data={"csrf": csrf, "edited": "yaml", "yaml": text}
        )
        assert words in Seen(checked.text).text
        sent = await browser.post("/jobs/new", data={"csrf": csrf, "yaml": text})
        assert sent.status_code in (404, 422)
        assert words in Seen(sent.text).text
        assert text in Seen(sent.text).text


async def test_files_are_uploaded_and_checked(browser: httpx.AsyncClient) -> None:
    headers = {"X-CSRF-Token": await token(browser), "Content-Type": "application/octet-stream"}
    good = await browser.post("/files?name=a.jsonl", content=b'{"q": "1"}\n', headers=headers)
    assert good.status_code == 303
    bad = await browser.post("/files?name=b.jsonl", content=b"{\n", headers=headers)
    assert bad.status_code == 422
    assert "line 1" in bad.text
    listed = (await browser.get("/datasets")).text
    assert "a.jsonl" in listed
    assert "b.jsonl" not in listed


async def test_rows_are_filtered_and_paged(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    dataset = world.fill(site, tmp_path)["dataset"]
    first = (await browser.get(f"/datasets/{dataset}?part=rejected")).text
    found = re.search(r'rel="next" href="([^"]+)"', first)
    assert found is not None
    second = (await browser.get(f"/datasets/{dataset}{found.group(1).replace('&amp;', '&')}")).text
    ids = [re.findall(r'id="row-([^"]+)"', text) for text in (first, second)]
    assert len(ids[0]) == 10
    assert not set(ids[0]) & set(ids[1])
    only = (await browser.get(f"/datasets/{dataset}?part=rejected&reason=target")).text
    assert 0 < only.count('class="row"') == only.count(">target</span>")
    none = (await browser.get(f"/datasets/{dataset}?q=nowhere-at-all")).text
    assert "No such rows" in none


async def test_a_login_link_opens_the_dashboard_once(
    site: Site, browser: httpx.AsyncClient
) -> None:
    keys.create(site, NewKey(name="k"))
    away = await browser.get("/jobs?state=failed")
    assert away.status_code == 303
    assert away.headers["location"] == "/login?next=%2Fjobs%3Fstate%3Dfailed"
    link = login.link(site.settings, "http://localhost")
    for _ in range(2):
        assert "Open the dashboard" in (await browser.get(link)).text
    form = {"token": link.partition("token=")[2], "next": "/jobs"}
    opened = await browser.post("/login", data=form)
    assert (opened.status_code, opened.headers["location"]) == (303, "/jobs")
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "samesite=lax" in opened.headers["set-cookie"].lower()
    assert (await browser.get("/jobs")).status_code == 200
    again = await browser.post("/login", data=form)
    assert again.status_code == 403
    assert "used before" in again.text


async def test_a_key_opens_a_session_with_its_scopes(
    site: Site, browser: httpx.AsyncClient
) -> None:
    _, key = keys.create(site, NewKey(name="reader", scopes=("read",)))
    assert (await browser.post("/login", data={"key": "wrong"})).status_code == 401
    assert (await browser.post("/login", data={"key": key})).status_code == 303
    seen = (await browser.get("/")).text
    assert "New job" not in seen
    assert (await browser.get("/keys")).status_code == 403


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example"])
async def test_login_leads_nowhere_else(
    site: Site, browser: httpx.AsyncClient, target: str
) -> None:
    _, key = keys.create(site, NewKey(name="k"))
    opened = await browser.post("/login", data={"key": key, "next": target})
    assert opened.headers["location"] == "/"


async def test_the_first_key_keeps_its_maker_inside(site: Site, browser: httpx.AsyncClient) -> None:
    csrf = await token(browser)
    form = {"csrf": csrf, "name": "first", "scopes": ["admin"]}
    made = await browser.post("/keys", data=form)
    assert "retort_" in made.text
    assert (await browser.get("/keys")).status_code == 200
    listed = keys.listing(site)
    revoked = await browser.post(
        f"/keys/{listed[0].id}/revoke", data={"csrf": await token(browser)}
    )
    assert revoked.status_code == 303
    browser.cookies.delete(COOKIE)
    assert (await browser.get("/keys")).headers["location"].startswith("/login")


async def test_a_teacher_that_cannot_be_reached_is_told_of(browser: httpx.AsyncClient) -> None:
    form = {"csrf": await token(browser), "name": "t", "base_url": "http://127.0.0.1:9/v1"}
    form |= {"served_model": "m"}
    refused = await browser.post("/teachers", data=form | {"check": "on"})
    assert refused.status_code == 502
    assert "127.0.0.1:9" in refused.text
    assert (await browser.post("/teachers", data=form)).status_code == 303
    assert "silent" in (await browser.get("/teachers")).text


async def test_rows_in_the_spec_are_not_stored_by_the_check(
    site: Site, browser: httpx.AsyncClient
) -> None:
    add_teacher(site)
    text = yaml.safe_dump({"kind": "build", "build": build([{"question": "1?", "answer": "1"}])})
    form = {"csrf": await token(browser, "/jobs/new"), "edited": "yaml", "yaml": text}
    assert "when it is submitted" in (await browser.post("/jobs/new/check", data=form)).text
    assert artifacts.listing(site, "file", name=None, before=None, limit=5).artifacts == []


def test_templates_escape_by_themselves() -> None:
    assert templates.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
