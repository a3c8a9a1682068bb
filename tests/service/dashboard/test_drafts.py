"""What is typed into a form and not sent survives a reload, in a real browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from service.site import Site
from tests.service.dashboard.live import CHROMIUM, page
from tests.service.given import add_teacher

__all__ = ["page"]

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


def test_a_job_that_is_typed_stays_until_it_is_taken_or_discarded(
    site: Site, url: str, page: Page, seeds: str
) -> None:
    add_teacher(site)
    note, text = page.get_by_text("didn't send is back"), page.get_by_label("YAML")
    name, limit = page.get_by_label("Dataset name"), page.get_by_label("First so many seeds")
    page.goto(f"{url}/jobs/new?kind=cot")
    page.get_by_label("Teacher").select_option("t")
    page.get_by_label("Seeds", exact=False).first.select_option(seeds)
    expect(page.locator("#verdict")).to_contain_text("It can run")
    expect(note).to_be_hidden()
    text.fill(text.input_value() + "  limit: 3\n")
    expect(limit).to_have_value("3")
    page.reload()
    expect(note).to_be_visible()
    expect(limit).to_have_value("3")
    expect(page.locator("#verdict")).to_contain_text("It can run")
    # At once: before the other side has heard of it.
    name.fill("other")
    page.reload()
    expect(text).to_have_value(re.compile("name: other.*teacher: t.*limit: 3", re.DOTALL))
    # Refused: it comes back from the server, and stays kept.
    text.fill(text.input_value().replace("limit: 3", "limit: none"))
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("build.limit")
    page.goto(f"{url}/jobs/new?kind=cot")
    expect(text).to_have_value(re.compile("limit: none"))
    text.fill(text.input_value().replace("limit: none", "limit: 2"))
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="build other")).to_be_visible()
    page.goto(f"{url}/jobs/new?kind=cot")
    expect(note).to_be_hidden()
    assert "other" not in text.input_value()
    name.fill("discarded")
    page.reload()
    page.get_by_role("button", name="Discard it").click()
    expect(name).to_have_value("dataset")
    expect(note).to_be_hidden()


def test_other_forms_keep_theirs_but_no_secret(url: str, page: Page) -> None:
    page.goto(f"{url}/teachers")
    page.get_by_label("Address").fill("http://127.0.0.1:9")
    page.locator("input[name=api_key]").fill("secret")
    page.get_by_text("Ask it for one token first").click()
    page.reload()
    expect(page.get_by_label("Address")).to_have_value("http://127.0.0.1:9")
    expect(page.locator("input[name=api_key]")).to_have_value("")
    assert page.evaluate("JSON.stringify(sessionStorage)").count("secret") == 0
    page.locator("input[name=name]").fill("t")
    page.get_by_label("Model").fill("m")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_text("silent")).to_be_visible()
    expect(page.get_by_label("Address")).to_have_value("")
    page.goto(f"{url}/schedules")
    page.get_by_label("Cron").fill("30 2 * * *")
    page.reload()
    expect(page.get_by_label("Cron")).to_have_value("30 2 * * *")
