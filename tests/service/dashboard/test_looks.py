"""Every page in a real browser: on a phone's width, in light and dark, by the reader's clock."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from service.login import COOKIE
from service.site import Site
from service.tables import Job, State
from tests.service.dashboard import world
from tests.service.dashboard.addresses import PARTS, addresses
from tests.service.dashboard.live import CHROMIUM, page

__all__ = ["page"]

pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a bound for a busy machine
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


def test_every_page_fits_a_phone_and_is_legible_in_light_and_dark(
    site: Site, url: str, page: Page, tmp_path: Path
) -> None:
    ids, cookie = world.add_key(site, world.fill(site, tmp_path))
    page.context.add_cookies([{"name": COOKIE, "value": cookie, "url": url}])
    every_state_has_a_job(site)
    whole = [place for place in addresses(ids) if not place.endswith(PARTS)]
    faults: list[tuple[object, ...]] = []
    backs = set()
    for theme, size in (("light", PHONE), ("dark", DESK)):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size(size)
        for place in whole:
            page.goto(f"{url}{place}")
            beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            faint = page.evaluate(CONTRAST)
            if beyond > 0 or faint:
                faults.append((place, theme, beyond, faint))
        backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert faults == []
    assert len(backs) == 2


def every_state_has_a_job(site: Site) -> None:
    with site.sessions.writing.begin() as session:
        for state in State:
            made_up = {"kind": "serve", "name": state, "spec": {"kind": "serve"}, "state": state}
            session.add(Job(id=f"job-{state}", **made_up))


@pytest.mark.parametrize(
    ("zone", "shown"),
    [("Asia/Tokyo", "25/11/2026, 05:30:00"), ("America/New_York", "24/11/2026, 15:30:00")],
)
def test_times_are_the_readers_own(site: Site, url: str, page: Page, zone: str, shown: str) -> None:
    at = datetime(2026, 11, 24, 20, 30, tzinfo=UTC)
    with site.sessions.writing.begin() as session:
        session.add(Job(id="job-1", kind="serve", name="served", spec={}, created_at=at))
    assert page.context.browser is not None
    there = page.context.browser.new_context(timezone_id=zone, locale="en-GB").new_page()
    for place in ("/jobs", "/"):
        there.goto(f"{url}{place}")
        time = there.locator("tbody time").first
        expect(time).to_have_text(shown)
        expect(time).to_have_attribute("title", "2026-11-24 20:30 UTC")
    # A part of the page that htmx brings is no exception.
    there.evaluate("document.querySelector('#live').dataset.old = 'yes'")
    expect(there.locator("#live[data-old]")).to_have_count(0)
    expect(there.locator("tbody time").first).to_have_text(shown)
