"""What a child job publishes, and what becomes of it while it can't."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import jobs, pausing
from service.site import Site
from service.tables import State
from tests.workers.conftest import get_job, new_site, wait_for
from tests.workers.test_child import fake, put, told, train_spec
from workers import child


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An installation whose disk has no room for what is published."""
    monkeypatch.setattr(child, "DISK_PATIENCE_S", 0.1)
    site = new_site(tmp_path / "data", lease_s=30.0, min_free_bytes=2**60)
    yield site
    site.sessions.engine.dispose()


def waiting_for_space(site: Site, job_id: str, **more: Any) -> threading.Thread:
    """`child.run` beside the test, once it waits for the disk."""
    more = {"trainer": fake("ok")} | more
    thread = threading.Thread(target=child.run, args=(site, job_id), kwargs=more)
    thread.start()
    wait_for(lambda: bool(told(site, job_id, "disk_full")))
    return thread


def test_a_worker_that_stops_while_the_disk_is_full_puts_the_job_back(full: Site) -> None:
    job_id, stops = put(full, train_spec(full)), threading.Event()
    thread = waiting_for_space(full, job_id, worker_stops=stops.is_set)

    stops.set()
    thread.join(30)

    job = get_job(full, job_id)
    assert (job.state, job.reason, job.owner, job.attempts) == (State.QUEUED, None, None, 0)


def test_a_job_cancelled_while_the_disk_is_full_is_cancelled(full: Site) -> None:
    job_id = put(full, train_spec(full))
    thread = waiting_for_space(full, job_id)

    jobs.cancel(full, job_id)
    thread.join(30)

    job = get_job(full, job_id)
    assert (job.state, job.reason) == (State.CANCELLED, "cancelled")


def test_a_job_paused_while_the_disk_is_full_rests(full: Site) -> None:
    job_id = put(full, train_spec(full))
    thread = waiting_for_space(full, job_id)

    pausing.pause(full, job_id)
    thread.join(30)

    assert get_job(full, job_id).state == State.PAUSED
