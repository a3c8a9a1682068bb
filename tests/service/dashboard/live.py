"""An installation that is up, and a browser: a real API, worker and Redis in processes of their
own."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from service import keys
from service.addresses import ALIVE
from service.keys import NewKey
from service.settings import broker_socket
from service.site import Site
from tests.service.dashboard.hostile_teacher import hostile_teacher
from tests.workers.conftest import new_site, wait_for
from tests.workers.test_workers import redis_at

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Stack:
    """An installation that is up, and where its teacher is."""

    site: Site
    url: str
    teacher: str


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """API and worker in processes of their own, a private Redis; a key is made, so that nobody is
    let in without."""
    port = free_port()
    site = new_site(tmp_path / "data", port=port)
    keys.create(site, NewKey(name="somebody else's"))
    api = ("uvicorn", "service.app:app", "--port", str(port), "--log-level", "warning")
    worker = ("celery", "-A", "workers.app", "worker", "-P", "threads", "-c", "2")
    queues = ("-Q", "build,control,train", "--without-gossip", "--without-mingle")
    running: list[subprocess.Popen[bytes]] = []
    with redis_at(broker_socket(site.settings.data_dir)), hostile_teacher() as teacher:
        try:
            running += [start(site, tmp_path, command) for command in (api, (*worker, *queues))]
            wait_for(lambda: answers(f"http://127.0.0.1:{port}{ALIVE}"), 120)
            yield Stack(site, f"http://127.0.0.1:{port}", teacher)
        finally:
            for process in running:
                process.kill()
                process.wait()
            site.sessions.engine.dispose()


@pytest.fixture
def page() -> Iterator[Page]:
    """A fresh browser; what it complains of fails the test."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page()
        # Bounds for a hung page on a busy machine, not measurements.
        opened.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        opened.on("console", lambda said: complaints.extend(_complaint(said)))
        yield opened
        browser.close()
    assert complaints == []


def _complaint(said: ConsoleMessage) -> list[str]:
    """A browser tells of forms that are refused, too: tests send such."""
    return [said.text] if said.type == "error" and "status of 422" not in said.text else []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(site: Site, folder: Path, command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    settings = site.settings
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RETORT_DATA_DIR": str(settings.data_dir),
        "RETORT_PORT": str(settings.port),
        "RETORT_RECONCILE_S": "0.5",
        "RETORT_MIN_FREE_BYTES": "0",
    }
    with (folder / f"{command[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=log, stderr=log
        )


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):
            return True
    except (URLError, OSError):
        return False
