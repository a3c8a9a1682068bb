from pathlib import Path

import httpx
import pytest

from service import job_logs
from service.site import Site
from service.tables import State
from tests.service.dashboard.asked import Seen
from tests.service.dashboard.world import XSS, add_job

TRAIN = "loading\rstep 1\rstep 2\n" + "".join(f"line {n}\n" for n in range(2000))


@pytest.fixture
def job_id(site: Site) -> str:
    """A recipe's job whose one part has a log."""
    recipe = add_job(site, "recipe", "whole", state=State.RUNNING)
    part = add_job(site, "train", "part", state=State.RUNNING, parent_id=recipe)
    write(site, part, "train.log", TRAIN + f"Authorization: Bearer abc123secret\n{XSS[0]}\n")
    return recipe


def write(site: Site, job_id: str, name: str, text: str) -> Path:
    folder = site.settings.data_dir / "work" / job_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


async def test_a_log_is_text_without_secrets(api: httpx.AsyncClient, job_id: str) -> None:
    answer = await api.get(f"/api/v1/jobs/{job_id}/log")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    lines = answer.text.splitlines()
    assert lines[:3] == ["==> job-part train.log <==", "step 2", "line 0"]
    assert lines[-1] == XSS[0]
    assert "abc123secret" not in answer.text
    assert (await api.get("/api/v1/jobs/job-none/log")).status_code == 404


def test_of_a_long_log_whole_lines_of_the_end_are_read(site: Site, job_id: str) -> None:
    path = site.settings.data_dir / "work" / "job-part" / "train.log"
    (full,) = job_logs.read(site, job_id, job_logs.MOST_BYTES)
    assert full.bytes == path.stat().st_size
    assert full.text.count("\n") == path.read_bytes().count(b"\n")
    # However the end is cut, half a line, and so half a secret, is never shown.
    for tail in range(1, 120):
        (log,) = job_logs.read(site, job_id, tail)
        assert len(log.text) <= tail
        assert set(log.text.split("\n")) <= set(full.text.split("\n"))


async def test_its_page_shows_it_as_text_and_grows(
    browser: httpx.AsyncClient, site: Site, job_id: str
) -> None:
    seen = Seen((await browser.get(f"/jobs/{job_id}/log")).text)
    assert XSS[0] in seen.text
    assert "abc123secret" not in seen.text
    live = f"/jobs/{job_id}/log/live"
    assert [one["hx-get"] for _, one in seen.tags if "hx-get" in one] == [live]
    write(site, "job-part", "evaluate.log", "and more\n")
    assert "and more" in (await browser.get(live)).text
    assert f"/jobs/{job_id}/log" in (await browser.get(f"/jobs/{job_id}")).text
    build = add_job(site, "build", "done", state=State.SUCCEEDED)
    page = (await browser.get(f"/jobs/{build}/log")).text
    assert "Nothing written" in page
    assert "hx-get" not in page
