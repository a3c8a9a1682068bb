"""A person's way through the dashboard, in a real browser, over a real API, worker and Redis. The
teacher is a labelled fake whose answers are markup."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from service import login
from tests.service.dashboard.hostile_teacher import MODEL
from tests.service.dashboard.live import CHROMIUM, ROOT, Stack, page, stack
from tests.service.dashboard.world import XSS

__all__ = ["page", "stack"]

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
ROWS = 60
STUDENT = str(ROOT / "examples/demo/models/student-base")
TRAINED_MS = 120_000
"""A bound for a hung job on a busy machine: a training of a few steps takes seconds."""


def test_from_the_login_link_to_rows_that_stay_text(
    stack: Stack, page: Page, tmp_path: Path
) -> None:
    logs_in_by_link(stack, page)
    registers_the_teacher(stack, page)
    uploads_seeds(page, tmp_path)
    starts_a_build(page)
    watches_it_live(page)
    reads_rows(page)
    judges_rows_by_keyboard(page)
    trains_on_it(page)
    compresses_it(page)
    compares_in_the_report(page)
    asks_side_by_side(page)
    schedules_it_and_sees_it_run(page)
    walks_by_keyboard_on_a_phone(stack, page)
    assert page.title().endswith("· Retort")


def logs_in_by_link(stack: Stack, page: Page) -> None:
    page.goto(stack.url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(login.link(stack.site.settings, stack.url))
    page.get_by_role("button", name="Open the dashboard").click()
    expect(page.get_by_role("heading", name="Nothing has run yet")).to_be_visible()


def registers_the_teacher(stack: Stack, page: Page) -> None:
    page.get_by_role("link", name="Register a teacher").click()
    page.get_by_label("Name", exact=False).first.fill("hostile")
    page.get_by_label("Address").fill(stack.teacher)
    page.get_by_label("Model").fill(MODEL)
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_text("answers", exact=True)).to_be_visible()


def uploads_seeds(page: Page, folder: Path) -> None:
    seeds = folder / "sums.jsonl"
    lines = [{"question": f"What is {n} plus {n % 7}?", "answer": n + n % 7} for n in range(ROWS)]
    seeds.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page.get_by_role("link", name="Datasets").click()
    page.get_by_label("File").set_input_files(seeds)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("link", name="sums.jsonl")).to_be_visible()


def starts_a_build(page: Page) -> None:
    page.get_by_role("link", name="New job").click()
    expect(page.locator("#verdict")).to_contain_text("build.teacher")
    page.get_by_label("Dataset name").fill("sums")
    page.get_by_label("Teacher").select_option("hostile")
    page.get_by_label("Seeds", exact=False).first.select_option(index=1)
    page.get_by_label("Requests in flight").fill("4")
    expect(page.locator("#verdict")).to_contain_text(f"{ROWS} seeds: {ROWS} requests")
    text = page.get_by_label("YAML")
    assert "max_in_flight: 4" in text.input_value()
    # The other way round: what is typed into the YAML shows in the form.
    text.fill(text.input_value() + "  limit: 50\n")
    expect(page.get_by_label("First so many seeds")).to_have_value("50")
    expect(page.locator("#verdict")).to_contain_text("50 seeds: 50 requests")
    page.get_by_role("button", name="Preview ten rows").click()
    expect(page.locator("#preview article")).to_have_count(10)
    page.get_by_role("button", name="Submit").click()


def watches_it_live(page: Page) -> None:
    expect(page.get_by_role("heading", name="build sums")).to_be_visible()
    # No reload: the page hears of it by itself.
    expect(page.locator("#live .state").first).to_have_text("done", timeout=40_000)
    expect(page.locator("#live .figures")).to_contain_text("50")
    page.get_by_role("link", name="Dataset", exact=True).click()


def reads_rows(page: Page) -> None:
    expect(page.get_by_role("heading", name="sums")).to_be_visible()
    shown = ""
    while True:
        shown += page.locator("main").inner_text()
        more = page.get_by_role("link", name="Next page")
        if more.count() == 0:
            break
        more.click()
    # The first payload comes with wrong answers: it is among the rejects.
    assert [payload in shown for payload in XSS] == [False, *[True] * (len(XSS) - 1)]
    assert page.locator("main iframe, main img, main script").count() == 0
    page.get_by_label("Holds the text").fill("onerror=")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**q=onerror**", wait_until="load")
    page.reload()
    assert "onerror=" in page.locator("article").first.inner_text()
    page.get_by_role("link", name="rejected").click()
    expect(page.locator("article .state").first).to_have_text("wrong answer")
    assert XSS[0] in page.locator("article").first.inner_text()
    page.get_by_role("link", name="Charts and card").click()
    expect(page.get_by_role("img", name="Histogram of completion lengths")).to_be_visible()


AT_ONCE = """() => {
  const told = new MutationObserver(() => {
    if (!document.querySelector("#review").textContent.includes("2 verdicts:")) return;
    told.disconnect();
    document.body.dataset.undone = "u";
    for (const key of "ku")
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  });
  told.observe(document.body, {childList: true, subtree: true});
}"""


def judges_rows_by_keyboard(page: Page) -> None:
    bar = page.locator("#review")
    page.locator(".tabs a").first.click()
    first = page.locator("article").first.get_attribute("id") or ""
    page.wait_for_load_state()
    for key in "jr":
        page.keyboard.press(key)
    expect(bar).to_contain_text("1 verdict:")
    # A second verdict, taken back as soon as it is told: before anything else can happen.
    page.evaluate(AT_ONCE)
    page.keyboard.press("a")
    expect(page.locator("body[data-undone]")).to_have_count(1)
    expect(bar).to_contain_text("1 verdict:")
    page.reload()
    expect(page.locator("article").first.get_by_role("button", pressed=True)).to_have_text("Reject")
    page.get_by_role("link", name="rejected").click()
    page.locator("article").first.get_by_role("button", name="Accept").click()
    expect(bar).to_contain_text("1 to accept, 1 to reject")
    page.get_by_role("button", name="Make a new version").click()
    expect(page.get_by_role("heading", name="sums version 2")).to_be_visible()
    page.get_by_role("link", name="removed 1").click()
    removed = page.locator("article")
    expect(removed).to_have_count(1)
    assert first.removeprefix("row-") in removed.inner_text()
    expect(removed.locator(".state")).to_have_text(["accepted", "by hand"])


def trains_on_it(page: Page) -> None:
    page.get_by_role("link", name="Train on it").click()
    expect(page.locator("select[name='f.train.dataset']")).not_to_have_value("")
    page.get_by_label("Student to start from").fill(STUDENT)
    page.get_by_label("Model name").fill("adder")
    page.get_by_label("Rows in a step").fill("8")
    expect(page.locator("#verdict")).to_contain_text("steps")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", name="train adder")).to_be_visible()
    # A plot comes while it trains: the page hears of the steps by itself.
    expect(page.locator(".curve canvas").first).to_be_visible(timeout=TRAINED_MS)
    expect(page.locator("#live .state").first).to_have_text("done", timeout=TRAINED_MS)
    page.get_by_role("link", name="Log", exact=True).click()
    expect(page.locator("#written")).to_contain_text("train.log")
    page.go_back()
    page.get_by_role("link", name="Model", exact=True).click()


def compresses_it(page: Page) -> None:
    expect(page.get_by_role("img", name="What it was made from")).to_contain_text("sums v2")
    page.get_by_role("link", name="Compress it").click()
    expect(page.locator("select[name='f.compress.dataset']")).not_to_have_value("")
    text = page.get_by_label("YAML")
    stages = "  - kind: wanda\n    sparsity: 0.5\n  - kind: ptq\n    scheme: W8A8\n"
    assert stages in text.input_value()
    text.fill(text.input_value().replace(stages, "  - kind: magnitude\n    sparsity: 0.5\n"))
    expect(page.locator("#verdict")).not_to_contain_text("can't")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#live .state").first).to_have_text("done", timeout=TRAINED_MS)
    expect(page.locator("#live table").first).to_contain_text("magnitude")


def compares_in_the_report(page: Page) -> None:
    compression = page.url
    page.get_by_role("button", name="Draw a report").click()
    expect(page.locator("#live .state").first).to_have_text("done", timeout=TRAINED_MS)
    page.goto(compression)
    page.get_by_role("link", name="Report", exact=True).click()
    for label in ("student base", "student", "magnitude"):
        expect(page.get_by_role("cell", name=label, exact=True).first).to_be_visible()
    assert page.locator("iframe, script, img[onerror]").count() == 0
    page.goto(compression)


def asks_side_by_side(page: Page) -> None:
    page.get_by_role("link", name="Playground").click()
    for side in "ab":
        page.locator(f"select[name={side}]").select_option("hostile")
    page.get_by_label("Prompt").fill("What is 20 plus 22?")
    page.get_by_role("button", name="Ask").click()
    answers = page.locator("#answers section")
    expect(answers).to_have_count(2)
    assert f"{XSS[42 % len(XSS)]} It makes 42." in answers.last.inner_text()
    assert page.locator("main iframe, main img, main script").count() == 0
    page.reload()
    expect(page.get_by_label("Prompt")).to_have_value("What is 20 plus 22?")


def schedules_it_and_sees_it_run(page: Page) -> None:
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("link", name="sums", exact=True).click()
    page.get_by_role("link", name="Schedule", exact=True).click()
    page.locator("input[name=name]").fill("nightly")
    page.locator("input[name=cron]").fill("30 2 * * *")
    page.get_by_role("button", name="Make the schedule").click()
    expect(page.locator("tbody td:nth-child(4) time")).to_have_count(5)
    page.get_by_role("button", name="Run now").click()
    page.locator("tbody td:nth-child(5) a").click()
    expect(page.get_by_role("heading", name="build sums")).to_be_visible()
    expect(page.locator("#live .state").first).to_have_text("done", timeout=40_000)


def walks_by_keyboard_on_a_phone(stack: Stack, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(stack.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
