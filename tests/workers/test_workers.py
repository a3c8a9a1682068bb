"""Real Redis, real Celery workers in processes of their own, and what befalls them."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis

from service import jobs
from service.settings import broker_socket
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    lost_at_most,
    register,
    submit,
    sums,
    wait_for,
)
from workers import redis_server
from workers.adopt import ledger_folder
from workers.work import build_folder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Plant:
    """The processes of one installation."""

    site: Site
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def worker(self, name: str, queues: str = "build,control") -> subprocess.Popen[bytes]:
        """A worker in a working directory of its own."""
        options = ["-P", "threads", "-c", "2", "-Q", queues, "-n", f"{name}@test"]
        quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        return self.start(name, ["worker", *options, *quiet])

    def beat(self) -> subprocess.Popen[bytes]:
        return self.start("beat", ["beat", "--pidfile=", "--loglevel", "INFO"])

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        cwd = self.folder / name
        cwd.mkdir(exist_ok=True)
        settings = self.site.settings
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RETORT_DATA_DIR": str(settings.data_dir),
            "RETORT_LEASE_S": str(settings.lease_s),
            "RETORT_RECONCILE_S": str(settings.reconcile_s),
        }
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers.app", *command],
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture
def plant(site: Site, tmp_path: Path) -> Iterator[Plant]:
    """A private Redis; workers and beat are started by the test."""
    with redis_at(broker_socket(site.settings.data_dir)) as _:
        started = Plant(site, tmp_path)
        try:
            yield started
        finally:
            for process in started.running:
                process.kill()
                process.wait()
            for log in sorted(tmp_path.glob("*.log")):  # Shown if the test failed.
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def redis_at(address: Path) -> Iterator[Redis]:
    redis_server.private_directory(address.parent)
    command = redis_server.command(redis_server.find(), address, address.parent)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: redis_server.answers(address))
        with Redis(unix_socket_path=str(address)) as client:
            yield client
    finally:
        process.kill()
        process.wait()


def ended(site: Site, job_id: str) -> bool:
    return get_job(site, job_id).state == State.SUCCEEDED


def test_a_worker_killed_three_times_asks_and_answers_once(plant: Plant, stub: StubTeacher) -> None:
    rows, window = 1500, 32
    register(plant.site, stub.url)
    stub.faults(delay_s=0.05)
    plant.beat()
    worker = plant.worker("w0")
    job_id = submit(plant.site, sums(rows), max_in_flight=window, chunk_rows=128)
    for kill, asked in enumerate((250, 600, 1000), 1):
        wait_for(lambda asked=asked: stub.stats()["answered"] >= asked)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert not ended(plant.site, job_id)
        worker = plant.worker(f"w{kill}")
    wait_for(lambda: ended(plant.site, job_id), 120)
    check_each_once(dataset_of(plant.site, job_id), rows)
    stats = stub.stats()
    assert stats["distinct"] == rows
    assert rows <= stats["requests"] <= rows + 3 * lost_at_most(window)


def test_another_worker_takes_over_the_chunks_of_a_killed_one(
    plant: Plant, stub: StubTeacher
) -> None:
    rows, window = 800, 32
    register(plant.site, stub.url)
    stub.faults(delay_s=0.2)
    plant.beat()
    first, second = plant.worker("first"), plant.worker("second")
    # A worker that is slow to start would find the job done by the other one.
    wait_for(lambda: all("@test ready" in plant.log(name) for name in ("first", "second")))
    job_id = submit(plant.site, sums(rows), max_in_flight=window, chunk_rows=64)
    wait_for(lambda: "drains" in plant.log("first") and "drains" in plant.log("second"))
    asked = stub.stats()["requests"]
    wait_for(lambda: stub.stats()["requests"] > asked + 50)
    first.send_signal(signal.SIGKILL)
    wait_for(lambda: ended(plant.site, job_id), 120)
    assert second.poll() is None
    check_each_once(dataset_of(plant.site, job_id), rows)
    assert rows <= stub.stats()["requests"] <= rows + lost_at_most(window)


def test_lost_and_repeated_doorbells_change_nothing(plant: Plant, stub: StubTeacher) -> None:
    rows = 300
    register(plant.site, stub.url)
    stub.faults(delay_s=0.02)
    lost = submit(plant.site, sums(rows))
    address = broker_socket(plant.site.settings.data_dir)
    with Redis(unix_socket_path=str(address)) as client:
        client.flushall()
        plant.beat()
        plant.worker("w")
        wait_for(lambda: get_job(plant.site, lost).state == State.RUNNING)
        client.flushall()
    for _ in range(10):
        plant.site.broker.ring("build", lost)
    wait_for(lambda: ended(plant.site, lost), 120)
    for _ in range(10):
        plant.site.broker.ring("build", lost)
    repeated = submit(plant.site, sums(50), name="second")
    wait_for(lambda: ended(plant.site, repeated), 60)
    check_each_once(dataset_of(plant.site, lost), rows)
    assert stub.stats()["requests"] == rows + 50


def test_a_worker_that_slept_past_its_lease_writes_nothing(plant: Plant, stub: StubTeacher) -> None:
    rows, in_flight = 400, 16
    register(plant.site, stub.url)
    stub.faults(delay_s=0.1)
    plant.beat()
    zombie = plant.worker("zombie")
    job_id = submit(plant.site, sums(rows), max_in_flight=in_flight, chunk_rows=64)
    wait_for(lambda: stub.stats()["answered"] > 100)
    put_to_sleep(zombie, plant.site)
    plant.worker("heir")
    wait_for(lambda: ended(plant.site, job_id), 120)
    wait_for(lambda: not files(plant.site, job_id))
    before, asked = traces(plant.site, job_id), stub.stats()["requests"]
    zombie.send_signal(signal.SIGCONT)
    wait_for(lambda: "is done with it" in plant.log("zombie"))
    # It lives: the next build is its to work on, too.
    second = submit(plant.site, sums(20), name="second")
    wait_for(lambda: ended(plant.site, second))
    assert traces(plant.site, job_id) == before
    # Requests on their way to the socket when it fell asleep still leave; it begins no other.
    assert 0 <= stub.stats()["requests"] - 20 - asked <= in_flight
    check_each_once(dataset_of(plant.site, job_id), rows)


def put_to_sleep(worker: "subprocess.Popen[bytes]", site: Site) -> None:
    """Stop a worker between its transactions: one asleep within SQLite's lock would stop everybody,
    which is SQLite's limit and not what is tested."""
    database = site.settings.database_url.removeprefix("sqlite:///")
    for _ in range(100):
        worker.send_signal(signal.SIGSTOP)
        wait_for(lambda: all_stopped(worker.pid))
        with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                worker.send_signal(signal.SIGCONT)
                time.sleep(0.05)
    raise AssertionError("the worker never lets go of the database")


def all_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped: they do so one by one, each when it likes."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in threads)


def traces(site: Site, job_id: str) -> tuple[object, ...]:
    """Everything that a worker could have written for a job."""
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
        return files(site, job_id), job.state, job.epoch, job.heartbeat, job.result, job.progress


def files(site: Site, job_id: str) -> list[Path]:
    """Where a job's chunks and ledger lie: both go once its dataset is published."""
    folders = build_folder(site.store.root, job_id), ledger_folder(site.store.root, job_id)
    return [folder for folder in folders if folder.exists()]


def test_a_worker_asked_to_stop_gives_its_chunks_back(plant: Plant, stub: StubTeacher) -> None:
    rows = 1000
    register(plant.site, stub.url)
    stub.faults(delay_s=0.1)
    worker = plant.worker("w0")
    job_id = submit(plant.site, sums(rows), max_in_flight=8, chunk_rows=64)
    wait_for(lambda: stub.stats()["answered"] > 40)
    worker.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        worker.wait(30)
    assert worker.poll() is not None
    assert not ended(plant.site, job_id)
    # The bell that it rang on its way out may have reached itself: the tick rings again.
    plant.beat()
    plant.worker("w1")
    wait_for(lambda: ended(plant.site, job_id), 120)
    check_each_once(dataset_of(plant.site, job_id), rows)
    assert stub.stats()["requests"] == rows
