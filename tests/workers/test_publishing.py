"""What a child job publishes, and what becomes of it while it can't."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import jobs, pausing
from service.site import Site
from service.tables import State
from tests.workers.conftest import get_job, new_site, wait_for
from tests.workers.test_child import (
    FAKE,
    artifact,
    compress_spec,
    fake,
    model_directory,
    put,
    reported,
    told,
    train_spec,
)
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


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Site]:
    """An installation whose leases outlast a busy machine's pauses."""
    site = new_site(tmp_path / "data", lease_s=30.0, min_free_bytes=0)
    yield site
    site.sessions.engine.dispose()


def evaluation(site: Site) -> dict[str, str]:
    path = site.settings.data_dir / "eval.jsonl"
    path.write_text("{}\n")
    return {"data": str(path)}


def test_a_student_that_cannot_be_measured_is_published_all_the_same(patient: Site) -> None:
    job_id = put(patient, train_spec(patient, evaluate=evaluation(patient)))

    child.run(patient, job_id, trainer=fake("unmeasured"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "bad_input")
    assert job.detail == "line 1 is no evaluation row: It has no prompt."
    assert artifact(patient, job.result["model"]).name == "small"


def test_stages_that_were_done_before_a_chain_failed_are_published(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))

    child.run(patient, job_id, trainer=fake("bad"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "bad_input")
    assert [artifact(patient, each).name for each in job.result["models"]] == ["m-wanda"]
    assert job.result["model"] == job.result["models"][0]


def test_stages_are_published_though_what_they_were_made_from_is_gone(patient: Site) -> None:
    spec = compress_spec(patient)
    spec["compress"]["evaluate"] = evaluation(patient)
    job_id = put(patient, spec)
    words = "import os, sys; os.remove(sys.argv.pop(1)); sys.path.insert(0, sys.argv.pop(1))"
    words += "; import fake_trainer; sys.exit(fake_trainer.main())"
    gone = str(patient.settings.data_dir / "eval.jsonl")

    child.run(patient, job_id, trainer=(sys.executable, "-c", words, gone, str(FAKE.parent), "ok"))

    job = get_job(patient, job_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    assert len(job.result["models"]) == 2


def test_a_gate_is_told_without_the_points_of_a_sweep(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))

    child.run(patient, job_id, trainer=fake("swept"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "gate")
    assert job.detail == "svd: accuracy fell by 20 points, 10 are allowed"
    assert len(job.result["models"]) == 2


def test_a_stage_whose_report_lacks_a_number_ends_the_job_in_words(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))

    child.run(patient, job_id, trainer=fake("unreadable"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "gate")
    assert [artifact(patient, each).name for each in job.result["models"]] == ["m-wanda"]


def test_a_report_tells_which_stages_were_left_out(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))
    child.run(patient, job_id, trainer=fake("gate"))

    chain = reported(patient, job_id)

    assert chain.notes == ("compress: stage 2 (ptq) was left out",)
    assert [row.stage.passed for row in chain.models if row.stage] == [True, False]


def test_a_trainer_that_was_ended_from_outside_did_not_crash(patient: Site) -> None:
    job_id = put(patient, train_spec(patient))

    for _ in range(child.CRASHES_ALLOWED):
        child.run(patient, job_id, trainer=fake("terminated"))

    assert get_job(patient, job_id).state == State.QUEUED
    assert told(patient, job_id, "crash") == []
    child.run(patient, job_id, trainer=fake("ok"))
    assert get_job(patient, job_id).state == State.SUCCEEDED


def test_a_report_of_a_compression_alone_lists_what_it_started_from(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))
    child.run(patient, job_id, trainer=fake("ok"))

    chain = reported(patient, job_id)

    start, wanda, svd = chain.models
    assert (start.label, start.role, start.id) == ("m", "base", model_directory(patient, "m"))
    assert start.measurement is not None
    assert (wanda.source, svd.source) == (start.id, wanda.id)
