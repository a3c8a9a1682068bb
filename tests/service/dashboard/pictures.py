"""Pictures of the dashboard, its figures made up: `python -m tests.service.dashboard.pictures OUT`
draws those of docs/images but the playground's; with `--all` every page, in light, in dark and on a
phone."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from prompts.record import Record, Rejected
from service import db
from service.probe import Probe
from service.settings import Settings
from service.site import Site, open_site
from service.tables import Job
from tests.service.dashboard import test_estimate, world
from tests.service.dashboard.addresses import PARTS, addresses
from tests.service.dashboard.live import CHROMIUM
from tests.service.given import add_teacher
from tests.service.served import served
from tests.trainer.report import made_up
from tests.trainer.report.made_up import measured

DESK, PHONE = {"width": 1240, "height": 900}, {"width": 390, "height": 844}
LOOKS = {"light": ("light", DESK), "dark": ("dark", DESK), "phone": ("light", PHONE)}
PLAIN = (
    "Let me see.",
    "rationale_then_answer",
    "Two rows were asked twice.",
    "The teacher was away for an hour.",
    "reads like a riddle",
)
"""Where the tests' world has payloads."""
EARLIER = {"kind": "cot", "teacher": "quick", "seeds": "file-x"}
STAGES = (
    ("wanda", 150, 80_000_000, 900.0),
    ("ptq", 168, 22_000_000, 640.0),
    ("width", 120, 30_000_000, 1400.0),
)


def main() -> None:
    """Draw into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    world.XSS, world.hostile, world._sample = PLAIN, agreed, sample
    with tempfile.TemporaryDirectory() as folder:
        site = made(Path(folder))
        ids = world.fill(site, Path(folder))
        well = Probe(ok=True, context_tokens=4096, max_logprobs=20, latency_s=0.04)
        for name in ("quick", "t"):
            add_teacher(site, name, well)
        seeds = test_estimate.add_seeds(site, 2000)
        test_estimate.add_build(site, "earlier", **test_estimate.SPENT)
        with site.sessions.writing.begin() as session:
            session.get_one(Job, "job-earlier").spec = {"kind": "build", "build": EARLIER}
        world.tell(site, ids["compress"], *(("stage", told) for told in stages()))
        with served(site) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport=DESK)
            for_docs(page, url, ids, seeds, given.out)
            for look, (theme, size) in (LOOKS if given.all else {}).items():
                page.emulate_media(color_scheme=theme)
                page.set_viewport_size(size)
                for number, place in enumerate(addresses(ids | {"key": "none"})):
                    if not place.endswith(PARTS):
                        page.goto(f"{url}{place}")
                        page.screenshot(path=given.out / f"{number:02} {look}.png", full_page=True)
            browser.close()


def made(folder: Path) -> Site:
    """An empty installation."""
    site = open_site(Settings(data_dir=folder / "data", min_free_bytes=0))
    db.upgrade(site.sessions.engine)
    return site


def agreed(rows: list[Record | Rejected]) -> list[Record | Rejected]:
    """Rows of several samples, which agreed more or less."""
    shares = (0.4, 0.6, 0.8, 1.0, 1.0)
    return [
        row.model_copy(update={"confidence": shares[number % len(shares)]})
        for number, row in enumerate(rows)
    ]


def sample(n: int, step: int) -> dict[str, Any]:
    """What a student answers that has learnt most of it."""
    sums = f"Ann starts with {n + 3} apples. {n + 3} plus {n} makes"
    return {
        "id": f"story-{n:04d}",
        "prompt": f"Ann has {n + 3} apples and buys {n} more. How many apples has she?",
        "reference": f"{sums} {2 * n + 3}. The answer is {2 * n + 3}.",
        "student": f"{sums} {2 * n + 3 - (step < 200)}. The answer is {2 * n + 3 - (step < 200)}.",
        "ended": True,
    }


def stages() -> Iterator[dict[str, Any]]:
    """Of a chain: what `world.fill` tells of the first, and three more."""
    for index, (kind, right, size, rate) in enumerate(STAGES, 1):
        after = measured(right, right - 10, right - 17, size // 2, size, rate)
        report = made_up.stage(index, kind, after)
        for end in ("before", "after"):
            there = report[end]["measurement"]
            report[end] = report[end] | {"measurement": there and there.model_dump(mode="json")}
        yield {"index": index, "kind": kind, "report": report}


def for_docs(page: Page, url: str, ids: dict[str, str], seeds: str, out: Path) -> None:
    """The pictures of docs/dashboard.md."""
    page.goto(f"{url}/jobs/new?kind=cot&teacher=quick")
    page.get_by_label("Seeds", exact=False).first.select_option(seeds)
    page.locator("#verdict .good").wait_for()
    page.screenshot(path=out / "dashboard-new.png")
    page.goto(f"{url}/datasets/{ids['dataset']}")
    page.screenshot(path=out / "dashboard-review.png")
    page.goto(f"{url}/datasets/{ids['dataset']}/facts")
    clip(page, out / "dashboard-charts.png", 640)
    page.goto(f"{url}/jobs/{ids['train']}")
    page.locator(".curve canvas").first.wait_for()
    clip(page, out / "dashboard-training.png", 1500)
    page.goto(f"{url}/jobs/{ids['compress']}")
    clip(page, out / "dashboard-compression.png", 760)


def clip(page: Page, path: Path, height: int) -> None:
    """The page's upper part."""
    area = {"x": 0, "y": 0, "width": DESK["width"], "height": height}
    page.screenshot(path=path, full_page=True, clip=area)


if __name__ == "__main__":
    main()
