import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from service.broker import QUEUES, TASKS, Broker
from service.spec import job_spec
from workers import redis_server


@contextmanager
def running(folder: Path) -> Iterator[redis.Redis]:
    socket = folder / "redis.sock"
    command = redis_server.command(redis_server.find(), socket, folder)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        while not redis_server.answers(socket):
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def test_every_kind_has_its_queue_and_its_task() -> None:
    kinds = set(job_spec.json_schema()["discriminator"]["mapping"])
    assert set(QUEUES) == set(TASKS) == kinds


def test_tasks_exist_under_these_names() -> None:
    from workers.app import app

    app.loader.import_default_modules()
    assert set(TASKS.values()) <= set(app.tasks)


def test_a_broker_that_is_away_is_no_error(tmp_path: Path) -> None:
    broker = Broker(f"redis+socket://{tmp_path}/none.sock")
    assert not broker.ring("build", "job-1")
    assert broker.depth("build") is None


@pytest.mark.servers
def test_rings_reach_the_queue_also_after_a_flush_and_a_restart(tmp_path: Path) -> None:
    broker = Broker(f"redis+socket://{tmp_path}/redis.sock")
    with running(tmp_path) as client:
        assert broker.depth("build") == 0
        assert broker.ring("build", "job-1")
        message = json.loads(client.lindex("build", 0))
        assert message["headers"]["task"] == "workers.tasks.drain"
        assert message["headers"]["argsrepr"] == "('job-1',)"

        client.flushall()
        assert broker.ring("build", "job-2")
        assert broker.depth("build") == 1
    assert not broker.ring("build", "job-3")
    with running(tmp_path):
        assert broker.ring("train", "job-4")
        assert broker.depth("train") == 1
