"""The pages of keys: limits are set and shown, as the API does."""

import httpx

from service import keys
from service.keys import NewKey
from service.quotas import Limits
from service.site import Site
from service.tables import Job, State
from tests.service.dashboard.asked import Seen, token


async def log_in(site: Site, browser: httpx.AsyncClient) -> None:
    _, shown = keys.create(site, NewKey(name="me", scopes=("admin",)))
    assert (await browser.post("/login", data={"key": shown})).status_code == 303


async def test_a_key_is_made_with_limits_that_its_page_shows_and_changes(
    site: Site, browser: httpx.AsyncClient
) -> None:
    await log_in(site, browser)
    csrf = {"csrf": await token(browser)}
    form = csrf | {"name": "nightly", "scopes": ["read"], "requests_per_minute": "60"}
    assert (await browser.post("/keys", data=form | {"jobs_at_once": "7"})).status_code == 200
    made = keys.listing(site)[0]
    assert (made.requests_per_minute, made.jobs_at_once, made.tokens_per_day) == (60, 7, None)
    listed = Seen((await browser.get("/keys")).text).text
    assert "60 requests a minute" in listed
    with site.sessions.writing.begin() as session:
        running = {"spec": {}, "state": State.RUNNING, "key_id": made.id}
        session.add(Job(id="job-1", kind="build", name="b", **running))
    page = Seen((await browser.get(f"/keys/{made.id}")).text)
    assert "1 of 7" in page.text
    assert "60" in {given.get("value") for tag, given in page.tags if tag == "input"}
    new = csrf | {"tokens_per_day": "5000", "requests_per_minute": "90"}
    assert (await browser.post(f"/keys/{made.id}/limits", data=new)).status_code == 303
    changed = keys.listing(site)[0]
    assert (changed.requests_per_minute, changed.tokens_per_day) == (90, 5000)
    assert changed.jobs_at_once is None, "what is empty is lifted"


async def test_limits_that_make_no_sense_come_back_beside_the_form(
    site: Site, browser: httpx.AsyncClient
) -> None:
    await log_in(site, browser)
    csrf = {"csrf": await token(browser)}
    form = csrf | {"name": "kept", "scopes": ["train"], "tokens_per_day": "many"}
    refused = await browser.post("/keys", data=form)
    page = Seen(refused.text)
    assert (refused.status_code, "limits.tokens_per_day" in page.text) == (422, True)
    inputs = [given for tag, given in page.tags if tag == "input"]
    assert {"kept", "many"} <= {given.get("value") for given in inputs}
    assert [one["value"] for one in inputs if "checked" in one] == ["train"]
    key, _ = keys.create(site, NewKey(name="k", limits=Limits(jobs_at_once=3)))
    refused = await browser.post(f"/keys/{key.id}/limits", data=csrf | {"jobs_at_once": "0"})
    assert (refused.status_code, "jobs_at_once" in refused.text) == (422, True)
    assert keys.listing(site)[0].jobs_at_once == 3
    assert (await browser.get("/keys/key-none")).status_code == 404
