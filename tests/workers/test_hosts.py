"""Two hosts: data directories of their own, PostgreSQL and Redis by URL, one artifact root: a
directory that they share, or a bucket."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service import db
from service.settings import Settings
from service.site import Site, open_site
from service.tables import State
from tests.service.conftest import cluster
from tests.service.postgres import PrivateCluster
from tests.service.s3 import bucket, s3_server
from tests.workers.conftest import (
    LEASE_S,
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
from tests.workers.test_workers import ROOT
from workers import redis_server

__all__ = ["bucket", "cluster", "s3_server"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

RETORT = "from service.cli import main; main()"


@dataclass(frozen=True)
class Host:
    """A machine of an installation: what it shares with the others are URLs and a directory."""

    folder: Path
    site: Site

    @contextmanager
    def worker(self, queues: str) -> Iterator["subprocess.Popen[bytes]"]:
        """`retort worker` in a directory of its own."""
        with self.running("worker", "-c", RETORT, "worker", "--queues", queues) as process:
            yield process

    @contextmanager
    def running(self, name: str, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A part of the installation, killed at the end; the end of its log is printed."""
        self.folder.mkdir(exist_ok=True)
        settings = self.site.settings
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RETORT_DATA_DIR": str(self.folder / "data"),
            "RETORT_DATABASE_URL": settings.database_url,
            "RETORT_BROKER_URL": settings.broker_url,
            "RETORT_ARTIFACT_ROOT": str(settings.artifact_root),
            "RETORT_LEASE_S": str(settings.lease_s),
            "RETORT_RECONCILE_S": str(settings.reconcile_s),
        }
        log = self.folder / f"{name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=environment,
                stdout=said,
                stderr=said,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "")
    command = [redis_server.find().path, *options, "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        with Redis(port=port) as client:
            return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture(params=["directory", "bucket"])
def installation(
    tmp_path: Path, cluster: PrivateCluster, redis_url: str, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """As its API host sees it."""
    shared = request.param == "directory"
    settings = Settings(
        data_dir=tmp_path / "api",
        database_url=cluster.new_database(),
        broker_url=redis_url,
        artifact_root=tmp_path / "shared" if shared else request.getfixturevalue("bucket"),
        lease_s=LEASE_S,
        reconcile_s=0.5,
    )
    site = open_site(settings)
    site.settings.data_dir.mkdir()
    db.upgrade(site.sessions.engine)
    yield site
    site.sessions.engine.dispose()


def test_a_job_begun_on_one_host_is_finished_on_another(
    installation: Site, stub: StubTeacher, tmp_path: Path
) -> None:
    rows, window = 400, 8
    site = installation
    register(site, stub.url)
    stub.faults(delay_s=0.05)
    first, second = Host(tmp_path / "first", site), Host(tmp_path / "second", site)
    job_id = submit(site, sums(rows), max_in_flight=window)
    with first.worker("build,control") as worker:
        wait_for(lambda: stub.stats()["answered"] >= 120, 120)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert get_job(site, job_id).state == State.RUNNING
    with second.worker("build,control"):
        # What beat would do on a third host: the second one judges the first.
        wait_for(lambda: ticked(site, job_id), 120)
    check_each_once(dataset_of(site, job_id), rows)
    assert stub.stats()["requests"] <= rows + lost_at_most(window)


def ticked(site: Site, job_id: str) -> bool:
    site.broker.ring("build", job_id)
    return get_job(site, job_id).state == State.SUCCEEDED


def test_an_unknown_queue_is_refused() -> None:
    command = [sys.executable, "-c", RETORT, "worker", "--queues", "build,training"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, "'training'" in said.stderr) == (2, True)
