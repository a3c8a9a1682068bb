"""A day of an installation on several hosts, each with a data directory of its own, which share
PostgreSQL, Redis and a bucket: its workers' hosts lose power in turn, and nothing is lost."""

import io
import json
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service import db
from service.addresses import READY
from service.settings import Settings
from service.site import Site, open_site
from tests.service.conftest import cluster
from tests.service.postgres import PrivateCluster
from tests.service.s3 import S3Server, bucket, s3_server
from tests.workers.conftest import (
    LEASE_S,
    StubTeacher,
    check_each_once,
    lost_at_most,
    sums,
    wait_for,
)
from tests.workers.test_child import told
from tests.workers.test_hosts import Host, redis_url
from tests.workers.test_workers import ROOT
from workers.data_lock import kill_tree

__all__ = ["bucket", "cluster", "redis_url", "s3_server"]

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

QUEUES = "build,train,control"
STUDENT = ROOT / "examples" / "demo" / "models" / "student-base"
ROWS, WINDOW = 240, 8
STEPS = 150
OPTIMIZATION = {
    "max_steps": STEPS,
    "batch_size": 4,
    "checkpoint_steps": 10,
    "eval_steps": STEPS,
    "sample_rows": 0,
    "threads": 1,
}


@pytest.fixture
def installation(
    tmp_path: Path, cluster: PrivateCluster, redis_url: str, bucket: str
) -> Iterator[Site]:
    """As its API's host sees it."""
    settings = Settings(
        data_dir=tmp_path / "api" / "data",
        database_url=cluster.new_database(),
        broker_url=redis_url,
        artifact_root=bucket,
        lease_s=LEASE_S,
        reconcile_s=0.5,
    )
    site = open_site(settings)
    db.upgrade(site.sessions.engine)
    yield site
    site.sessions.engine.dispose()


@contextmanager
def api_of(host: Host) -> Iterator[httpx.Client]:
    """A host that runs no worker: the service and the beat."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    service = ("-m", "uvicorn", "service.app:app", "--port", port, "--no-access-log")
    beat = ("-m", "celery", "-A", "workers.app", "beat", "--pidfile=")
    with (
        host.running("api", *service),
        host.running("beat", *beat),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        wait_for(lambda: answers(client))
        yield client


def answers(client: httpx.Client) -> bool:
    try:
        return client.get(READY).status_code < 500
    except httpx.TransportError:
        return False


def pull_the_plug(worker: "subprocess.Popen[bytes]") -> None:
    """Kill a host's worker, keepers and trainers, before any of them notices the others' end."""
    process = psutil.Process(worker.pid)
    process.suspend()
    kill_tree(process)
    worker.wait()


def state_of(api: httpx.Client, job: str) -> str:
    return str(api.get(f"/api/v1/jobs/{job}").raise_for_status().json()["state"])


def made_by(api: httpx.Client, job: str, what: str) -> str:
    """The id of what a job published, once it has ended well."""
    ended = ("succeeded", "failed", "cancelled")
    wait_for(lambda: state_of(api, job) in ended, 180)
    found = api.get(f"/api/v1/jobs/{job}").json()
    assert found["state"] == "succeeded", json.dumps(found, indent=1)
    return str(found["result"][what])


def submitted(api: httpx.Client, **spec: Any) -> str:
    made = api.post("/api/v1/jobs", json=spec)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def downloaded(api: httpx.Client, kind: str, name: str, folder: Path) -> Path:
    answer = api.get(f"/api/v1/{kind}/{name}/download").raise_for_status()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        packed.extractall(folder)
    return folder


def phases(site: Site, job: str, name: str) -> list[str]:
    return [each["detail"] for each in told(site, job, "phase") if each["name"] == name]


def checkpoints_in(server: S3Server, bucket: str) -> list[str]:
    return [key for key in server.objects(bucket) if key.startswith("checkpoint/")]


def test_what_one_host_began_another_finishes_and_a_third_hands_out(
    installation: Site, stub: StubTeacher, tmp_path: Path, s3_server: S3Server, bucket: str
) -> None:
    site = installation
    first, second = Host(tmp_path / "first", site), Host(tmp_path / "second", site)
    stub.faults(delay_s=0.05)
    with api_of(Host(tmp_path / "api", site)) as api:
        teacher = {"name": "stub", "base_url": f"{stub.url}/v1", "served_model": "stub"}
        assert api.post("/api/v1/teachers", json=teacher).status_code == 201
        lines = "".join(json.dumps(seed) + "\n" for seed in sums(ROWS))
        seeds = api.post("/api/v1/files", params={"name": "s.jsonl"}, content=lines).json()["id"]
        build = {"kind": "cot", "teacher": "stub", "seeds": seeds, "max_in_flight": WINDOW}
        built = submitted(api, kind="build", build=build | {"chunk_rows": 32})

        with first.worker(QUEUES) as worker:
            wait_for(lambda: stub.stats()["answered"] >= 80, 120)
            pull_the_plug(worker)
        assert state_of(api, built) == "running"

        with second.worker(QUEUES) as worker:
            dataset = made_by(api, built, "dataset")
            check_each_once(downloaded(api, "datasets", dataset, tmp_path / "rows"), ROWS)
            # What was in flight or being kept as the power went is asked once more, nothing else.
            assert stub.stats()["requests"] <= ROWS + lost_at_most(WINDOW)

            train = {"method": "sequence_level", "student": str(STUDENT), "dataset": dataset}
            train |= {"name": "small", "optimization": OPTIMIZATION}
            trained = submitted(api, kind="train", train=train)
            wait_for(lambda: len(phases(site, trained, "checkpoint")) >= 3, 120)
            pull_the_plug(worker)
        assert state_of(api, trained) == "running"

        with first.worker(QUEUES):
            model = made_by(api, trained, "model")
            # The job has ended before its worker tidies up.
            wait_for(lambda: not checkpoints_in(s3_server, bucket))
        assert "resumed from checkpoint-" in phases(site, trained, "train")[-1]
        student = downloaded(api, "models", model, tmp_path / "student")
        assert json.loads((student / "retort.json").read_text())["steps"] == STEPS
