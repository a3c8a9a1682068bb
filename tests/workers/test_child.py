import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from service import events, jobs, pausing
from service.ids import make_id
from service.settings import Settings
from service.site import Site
from service.tables import Artifact, Event, Job, State
from tests.workers.conftest import get_job, new_site, wait_for
from trainer.report.chain import Chain
from workers import child
from workers.errands import Command

FAKE = Path(__file__).with_name("fake_trainer.py")


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Site]:
    """An installation whose leases outlast a busy machine's pauses."""
    site = new_site(tmp_path / "data", lease_s=30.0, min_free_bytes=0)
    yield site
    site.sessions.engine.dispose()


def fake(mode: str) -> tuple[str, ...]:
    return (sys.executable, str(FAKE), mode)


def put(site: Site, spec: dict[str, Any], **fields: Any) -> str:
    """A queued job, without the checks of `submit`."""
    job_id = make_id("job")
    with site.sessions.writing.begin() as session:
        session.add(
            Job(id=job_id, kind=spec["kind"], name=f"a {spec['kind']}", spec=spec, **fields)
        )
    return job_id


def train_spec(site: Site, **more: Any) -> dict[str, Any]:
    base = model_directory(site, "base")
    train = {"method": "sequence_level", "student": base, "dataset": base, "name": "small"}
    return {"kind": "train", "train": train} | more


def compress_spec(site: Site) -> dict[str, Any]:
    stages = [{"kind": "wanda"}, {"kind": "svd"}]
    return {"kind": "compress", "compress": {"model": model_directory(site, "m"), "stages": stages}}


def model_directory(site: Site, name: str) -> str:
    folder = site.settings.data_dir / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return str(folder)


def told(site: Site, job_id: str, type: str) -> list[dict[str, Any]]:
    with site.sessions.reading() as session:
        query = select(Event.data).where(Event.job_id == job_id, Event.type == type)
        return list(session.scalars(query.order_by(Event.id)))


def artifact(site: Site, artifact_id: str) -> Artifact:
    with site.sessions.reading() as session:
        return session.get_one(Artifact, artifact_id)


def in_thread(site: Site, job_id: str, mode: str, stops: threading.Event | None = None) -> Any:
    """`child.run` beside the test, once the fake waits."""
    asked = (stops or threading.Event()).is_set
    thread = threading.Thread(
        target=child.run,
        args=(site, job_id),
        kwargs={"trainer": fake(mode), "worker_stops": asked},
    )
    thread.start()
    wait_for((work(site, job_id) / "out" / "waiting").exists)
    return thread


def work(site: Site, job_id: str) -> Path:
    return site.settings.data_dir / "work" / job_id


def fakes_of(job_id: str) -> list[int]:
    """Processes of the fake trainer that work for this job, keepers included."""
    return [
        process.pid
        for process in psutil.process_iter()
        if any(job_id in word for word in _words(process))
    ]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


def test_a_student_is_published_with_how_it_was_measured(patient: Site) -> None:
    data = patient.settings.data_dir / "eval.jsonl"
    data.write_text("{}\n")
    job_id = put(patient, train_spec(patient, evaluate={"data": str(data)}))

    child.run(patient, job_id, trainer=fake("ok"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.SUCCEEDED, None)
    student = artifact(patient, job.result["model"])
    assert (student.kind, student.name, student.job_id) == ("model", "small", job_id)
    assert student.summary["measurement"]["skills"]["cot"]["correct"] == 5
    assert student.summary["steps"] == 3
    assert told(patient, job_id, "step")[-1]["step"] == 2
    assert told(patient, job_id, "validation") == [{"step": 3, "loss": 0.25}]
    assert not (work(patient, job_id) / "out").exists()


@pytest.mark.parametrize("how", ["bad", "bad-launched"])
def test_bad_input_ends_the_job_in_the_trainers_words(patient: Site, how: str) -> None:
    """Also where a launcher of several processes puts an exit code of its own in its place."""
    job_id = put(patient, train_spec(patient))

    child.run(patient, job_id, trainer=fake(how))

    job = get_job(patient, job_id)
    assert (job.state, job.reason, job.attempts) == (State.FAILED, "bad_input", 1)
    assert job.detail == "The vocabularies differ: Choose another teacher."


def test_a_missing_model_directory_is_bad_input(patient: Site) -> None:
    spec = train_spec(patient)
    spec["train"]["student"] = "/nowhere/at/all"
    job_id = put(patient, spec)

    child.run(patient, job_id, trainer=fake("ok"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "bad_input")
    assert job.detail is not None
    assert "/nowhere/at/all" in job.detail


@pytest.mark.parametrize("how", ["crash-once", "lost-once"])
def test_a_crash_is_tried_again_from_where_it_was(patient: Site, how: str) -> None:
    """Also one that says what went away, and that it may be tried again."""
    job_id = put(patient, train_spec(patient))

    child.run(patient, job_id, trainer=fake(how))
    assert get_job(patient, job_id).state == State.QUEUED
    child.run(patient, job_id, trainer=fake(how))

    job = get_job(patient, job_id)
    assert (job.state, job.attempts) == (State.SUCCEEDED, 2)
    assert "from step 2" in [phase["detail"] for phase in told(patient, job_id, "phase")]


def test_a_job_that_always_crashes_fails_with_its_last_words(patient: Site) -> None:
    job_id = put(patient, train_spec(patient))

    for _ in range(child.CRASHES_ALLOWED + 1):
        child.run(patient, job_id, trainer=fake("crash"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "crashed")
    assert job.attempts == child.CRASHES_ALLOWED
    assert job.detail is not None
    assert "the last words of a crash" in job.detail


@pytest.mark.slow
def test_a_cancelled_job_ends_and_so_does_its_process(patient: Site) -> None:
    job_id = put(patient, train_spec(patient))
    thread = in_thread(patient, job_id, "wait")

    jobs.cancel(patient, job_id)
    thread.join(30)

    assert get_job(patient, job_id).state == State.CANCELLED
    assert fakes_of(job_id) == []


@pytest.mark.slow
def test_a_training_pauses_at_a_checkpoint_and_goes_on_from_it(patient: Site) -> None:
    job_id = put(patient, train_spec(patient))
    thread = in_thread(patient, job_id, "wait")

    assert pausing.pause(patient, job_id).pause_requested
    thread.join(30)

    job = get_job(patient, job_id)
    assert (job.state, job.reason, job.attempts) == (State.PAUSED, "paused_by_hand", 0)
    assert (job.owner, job.pause_requested) == (None, False)
    assert fakes_of(job_id) == []
    child.run(patient, job_id, trainer=fake("ok"))  # A doorbell changes nothing.
    assert get_job(patient, job_id).state == State.PAUSED
    pausing.resume(patient, job_id)
    child.run(patient, job_id, trainer=fake("ok"))
    assert get_job(patient, job_id).state == State.SUCCEEDED
    assert "from step 3" in [phase["detail"] for phase in told(patient, job_id, "phase")]


def test_a_worker_that_stops_puts_the_job_back_uncounted(patient: Site) -> None:
    job_id, stops = put(patient, train_spec(patient)), threading.Event()
    thread = in_thread(patient, job_id, "wait", stops)

    stops.set()
    thread.join(30)

    job = get_job(patient, job_id)
    assert (job.state, job.attempts, job.owner) == (State.QUEUED, 0, None)
    assert (work(patient, job_id) / "out" / "checkpoint").read_text() == "3"


def test_a_lost_lease_kills_the_child_and_writes_nothing(patient: Site) -> None:
    site = dataclasses.replace(
        patient, settings=Settings(**patient.settings.model_dump() | {"lease_s": 2.0})
    )
    job_id = put(site, train_spec(site))
    thread = in_thread(site, job_id, "stubborn")

    with site.sessions.writing.begin() as session:
        taken = {"epoch": Job.epoch + 1, "owner": "another worker"}
        session.execute(update(Job).where(Job.id == job_id).values(taken))
        before = events.since(session, job_id)[-1].id
    thread.join(30)

    job = get_job(site, job_id)
    assert (job.state, job.owner, job.epoch) == (State.RUNNING, "another worker", 2)
    assert fakes_of(job_id) == []
    with site.sessions.reading() as session:
        assert events.since(session, job_id, before) == []


def test_a_gate_publishes_what_was_made_and_says_why_it_stopped(patient: Site) -> None:
    job_id = put(patient, compress_spec(patient))

    child.run(patient, job_id, trainer=fake("gate"))

    job = get_job(patient, job_id)
    assert (job.state, job.reason) == (State.FAILED, "gate")
    assert job.detail == "svd: accuracy fell by 20 points, 10 are allowed"
    wanda, svd = (artifact(patient, each) for each in job.result["models"])
    assert (wanda.name, svd.name) == ("m-wanda", "m-svd")
    assert job.result["model"] == wanda.id  # the last that passed
    assert svd.inputs == [wanda.id]


def test_a_report_knows_the_whole_chain(patient: Site) -> None:
    data = patient.settings.data_dir / "eval.jsonl"
    data.write_text("{}\n")
    evaluate = {"data": str(data)}
    recipe = put(patient, recipe_spec(patient))
    train = put(patient, train_spec(patient, evaluate=evaluate), parent_id=recipe, part="train")
    child.run(patient, train, trainer=fake("ok"))
    student = get_job(patient, train).result["model"]
    compress = compress_spec(patient)
    compress["compress"]["model"] = student
    compress_id = put(patient, compress, parent_id=recipe, part="compress")
    child.run(patient, compress_id, trainer=fake("ok"))

    chain = reported(patient, recipe, evaluate=evaluate)

    assert [part.kind for part in chain.parts] == ["train", "compress"]
    assert [row.role for row in chain.models] == ["base", "student", "stage", "stage"]
    assert all(row.measurement or row.stage for row in chain.models)
    assert [row.source for row in chain.models[2:]] == [student, chain.models[2].id]
    assert chain.training is not None
    assert chain.training.steps[-1].step == 2
    assert student in {node.id for node in chain.lineage}


def test_a_report_knows_jobs_that_were_submitted_one_by_one(patient: Site) -> None:
    train = put(patient, train_spec(patient))
    child.run(patient, train, trainer=fake("ok"))
    compress = compress_spec(patient)
    compress["compress"]["model"] = get_job(patient, train).result["model"]
    compress_id = put(patient, compress)
    child.run(patient, compress_id, trainer=fake("ok"))

    chain = reported(patient, compress_id)

    assert [part.kind for part in chain.parts] == ["train", "compress"]
    assert [row.role for row in chain.models] == ["base", "student", "stage", "stage"]


def reported(site: Site, job_id: str, **more: Any) -> Chain:
    """What a report on a job tells."""
    report_id = put(site, {"kind": "report", "job": job_id, **more})
    child.run(site, report_id, trainer=fake("ok"))
    job = get_job(site, report_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    report = artifact(site, job.result["report"])
    return Chain.model_validate_json((site.store.path(report) / "chain.json").read_text())


def recipe_spec(site: Site) -> dict[str, Any]:
    train = train_spec(site)["train"]
    return {"kind": "recipe", "name": "chain", "train": train, "report": False}


@pytest.mark.slow
def test_a_killed_workers_child_dies_and_another_worker_goes_on(patient: Site) -> None:
    job_id = put(patient, train_spec(patient))
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(patient.settings.data_dir), job_id, *fake("wait")]
    )
    wait_for((work(patient, job_id) / "out" / "waiting").exists)

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()

    wait_for(lambda: fakes_of(job_id) == [])
    with patient.sessions.writing.begin() as session:
        # What an observer does once the lease has stood still for its length.
        freed = {"state": State.QUEUED, "owner": None, "epoch": Job.epoch + 1}
        session.execute(update(Job).where(Job.id == job_id).values(freed))
    child.run(patient, job_id, trainer=fake("ok"))
    assert get_job(patient, job_id).state == State.SUCCEEDED
    assert "from step 3" in [phase["detail"] for phase in told(patient, job_id, "phase")]


WORKER = """
import sys
from pathlib import Path
from service.settings import Settings
from service.site import open_site
from workers import child
site = open_site(Settings(data_dir=Path(sys.argv[1]), lease_s=30.0))
child.run(site, sys.argv[2], trainer=sys.argv[3:])
"""


def test_several_processes_are_started_by_accelerate() -> None:
    command = Command("train", ("train", "--spec", "s"), "", alone=False)
    line = child.command_line(("python", "-m", "trainer"), command, 2)
    assert line[1:5] == ["-m", "accelerate.commands.launch", "--num_processes", "2"]
    assert line[-4:] == ["trainer", "train", "--spec", "s"]
    assert child.command_line(("python", "-m", "trainer"), command, 1)[1:4] == [
        "-m",
        "trainer",
        "train",
    ]
