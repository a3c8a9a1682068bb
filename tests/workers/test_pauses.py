"""A teacher that goes away, comes back, or comes back as another one; and pauses by hand."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service import jobs, pausing
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    STUB,
    StubTeacher,
    check_each_once,
    dataset_of,
    fake_teacher,
    get_job,
    new_site,
    register,
    run_build,
    submit,
    sums,
    wait_for,
)
from workers.wake import wake

pytestmark = pytest.mark.slow

PATIENCE_S = 0.5
HOT = {"temperature": 1, "seed": 1}


def run(site: Site, job_id: str) -> None:
    run_build(site, job_id)


def in_thread(site: Site, job_id: str) -> threading.Thread:
    thread = threading.Thread(target=run, args=(site, job_id))
    thread.start()
    return thread


@contextmanager
def restarted(stub: StubTeacher, folder: Path) -> Iterator[None]:
    """Another fake teacher at the address of one that is gone."""
    port_file = folder / "again.port"
    port = stub.url.rpartition(":")[2]
    command = [sys.executable, str(STUB), "--port-file", str(port_file), "--port", port]
    with subprocess.Popen(command) as process:
        try:
            wait_for(port_file.exists)
            yield
        finally:
            process.kill()


def test_a_job_outlives_its_teacher(tmp_path: Path, stub: StubTeacher) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=PATIENCE_S)
    register(site, stub.url)
    stub.faults(delay_s=0.05)
    job_id = submit(site, sums(300), max_in_flight=8)
    thread = in_thread(site, job_id)
    wait_for(lambda: stub.stats()["answered"] > 60)
    before = stub.stats()["answered"]
    stub.process.kill()
    stub.process.wait()
    thread.join()
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.PAUSED, "paused_teacher")
    assert "does not answer" in (job.detail or "")
    run(site, job_id)  # The tick's doorbell: the probe finds nobody.
    assert get_job(site, job_id).state == State.PAUSED
    with restarted(stub, tmp_path):
        run(site, job_id)
        assert get_job(site, job_id).state == State.SUCCEEDED
        check_each_once(dataset_of(site, job_id), 300)
        asked = stub.stats()["requests"]
        # What was under way when it died may be asked once more, nothing else.
        assert 300 - before - 8 <= asked <= 300 - before + 8
    site.sessions.engine.dispose()


FEW_SHOT: dict[str, Any] = {
    "template": "{% for one in demonstrations %}{{ one.question }}\n{% endfor %}{{ question }}",
    "demonstrations": 1,
    "selector": {"kind": "embedding", "embedder": "aside"},
}
JUDGE = {
    "kind": "judge",
    "teacher": "aside",
    "rubric": "Is the sum right? Read 2 and 3.",
    "threshold": 1,
    "template": "{{ completion }} {{ rubric }} Score: 2 and 3",
    "structured": False,
}


@pytest.mark.parametrize(
    ("fields", "who"),
    [(FEW_SHOT, "embedder"), ({"checks": [JUDGE], "samples": 2, "sampling": HOT}, "teacher")],
    ids=["embedder", "judge"],
)
def test_a_job_outlives_whom_it_asks_beside_its_teacher(
    tmp_path: Path, stub: StubTeacher, fields: dict[str, Any], who: str
) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=PATIENCE_S)
    register(site, stub.url)
    stub.faults(delay_s=1.0)  # Answers are under way when patience ends.
    with fake_teacher(tmp_path / "aside.port") as aside:
        register(site, aside.url, name="aside")
        job_id = submit(site, sums(48), max_in_flight=8, chunk_rows=8, **fields)
        thread = in_thread(site, job_id)
        wait_for(lambda: stub.stats()["answered"] >= 8)
        aside.process.kill()
        aside.process.wait()
        thread.join()
        stub.faults(delay_s=0.0)
        job = get_job(site, job_id)
        assert (job.state, job.reason) == (State.PAUSED, "paused_teacher"), job.detail
        assert f"{who} aside at {aside.url}/v1 does not answer" in (job.detail or "")
        run(site, job_id)  # The tick's doorbell: the teacher is there, the other is not.
        assert get_job(site, job_id).state == State.PAUSED
    with restarted(aside, tmp_path):
        run(site, job_id)
        assert get_job(site, job_id).state == State.SUCCEEDED
        check_each_once(dataset_of(site, job_id), 48)
        # The teacher was there all the time: none of its answers was lost.
        assert stub.stats()["requests"] == 48 * fields.get("samples", 1)
    site.sessions.engine.dispose()


def test_a_fall_back_stands_in_for_no_judge(tmp_path: Path, stub: StubTeacher) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=PATIENCE_S)
    register(site, stub.url)
    register(site, "http://127.0.0.1:9", name="aside")
    shares = [{"name": "stub"}, {"name": "aside"}]
    judge = JUDGE | {"teacher": "gone"}
    register(site, "http://127.0.0.1:9", name="gone")
    job_id = submit(site, sums(20), checks=[judge], teachers=shares, teachers_mode="fallback")
    run(site, job_id)
    assert get_job(site, job_id).reason == "paused_teacher"
    assert not wake(site, job_id)
    register(site, stub.url, name="gone")
    assert wake(site, job_id)  # Of the two that write, one is enough.
    site.sessions.engine.dispose()


def test_a_short_outage_is_sat_out(tmp_path: Path, stub: StubTeacher) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=60)
    register(site, stub.url)
    stub.faults(status=503, times=10, after=30)
    job_id = submit(site, sums(100), max_in_flight=8)
    run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), 100)
    stats = stub.stats()
    # Eight under way notice it; from then on a probe at a time asks.
    assert stats["requests"] - stats["answered"] <= 16
    assert stats["probes"] >= 2
    site.sessions.engine.dispose()


def test_a_request_beyond_its_deadline_is_asked_again(tmp_path: Path, stub: StubTeacher) -> None:
    site = new_site(tmp_path / "data", request_timeout_s=0.5)
    register(site, stub.url)
    stub.faults(delay_s=300.0)
    job_id = submit(site, sums(12), max_in_flight=4)
    thread = in_thread(site, job_id)
    wait_for(lambda: stub.stats()["requests"] > 4)
    stub.faults(delay_s=0.0)
    thread.join()
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), 12)
    site.sessions.engine.dispose()


def test_another_teacher_under_the_same_name_is_not_asked(
    tmp_path: Path, stub: StubTeacher
) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=PATIENCE_S)
    register(site, stub.url)
    stub.faults(status=500, times=10**6, after=50)
    job_id = submit(site, sums(150), max_in_flight=8)
    run(site, job_id)
    assert get_job(site, job_id).reason == "paused_teacher"
    answered = stub.stats()["answered"]
    stub.faults(root="/models/other")
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.PAUSED, "paused_teacher_changed")
    assert "root was /models/stub, is /models/other" in (job.detail or "")
    assert stub.stats()["answered"] == answered
    run(site, job_id)  # It does not go on by itself.
    assert get_job(site, job_id).reason == "paused_teacher_changed"
    pausing.resume(site, job_id)
    run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    assert stub.stats()["answered"] == 150
    site.sessions.engine.dispose()


def test_a_pause_by_hand_keeps_what_is_under_way(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.1)
    job_id = submit(site, sums(200), max_in_flight=8)
    thread = in_thread(site, job_id)
    wait_for(lambda: stub.stats()["answered"] > 20)
    pausing.pause(site, job_id)
    thread.join()
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.PAUSED, "paused_by_hand")
    assert stub.stats()["answered"] == stub.stats()["requests"] < 100
    run(site, job_id)
    assert get_job(site, job_id).state == State.PAUSED
    stub.faults(delay_s=0)
    pausing.resume(site, job_id)
    run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    assert stub.stats()["requests"] == 200


def test_a_paused_build_that_is_cancelled_publishes_what_was_paid_for(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.1)
    job_id = submit(site, sums(200), max_in_flight=8)
    thread = in_thread(site, job_id)
    wait_for(lambda: stub.stats()["answered"] > 20)
    pausing.pause(site, job_id)
    thread.join()
    stub.process.kill()  # Nobody needs it for that.
    jobs.cancel(site, job_id)
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.CANCELLED, "cancelled")
    assert 20 < job.result["requests"] < 100
    check_each_once(dataset_of(site, job_id), 200)
