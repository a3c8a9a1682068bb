"""The embedded stack for real: each test brings one up, which takes some seconds."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from service import runtime
from service.addresses import READY
from service.settings import broker_socket
from tests.workers.conftest import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]
UP_LIMIT_S = 240.0
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts supervisors on one data directory, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*options: str, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "workers.supervisor", "--data-dir", str(tmp_path / "d")]
        environment = os.environ | {"RETORT_MIN_FREE_BYTES": "0"} | variables
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def wait_up(data_dir: Path, process: subprocess.Popen[str]) -> runtime.Runtime:
    def ready() -> bool:
        assert process.poll() is None, process.stdout and process.stdout.read()
        found = runtime.read(data_dir)
        return found is not None and found.ready and found.pid == process.pid

    wait_for(ready, UP_LIMIT_S)
    found = runtime.read(data_dir)
    assert found is not None
    return found


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != "zombie"]


def test_up_refuses_a_second_and_stops_without_a_trace(start: Start, tmp_path: Path) -> None:
    data_dir = tmp_path / "d"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first = start("--port", str(port))
        up = wait_up(data_dir, first)
    assert f":{port}" not in up.url  # somebody else listens there
    with urlopen(f"{up.url}{READY}") as answer:
        health = json.load(answer)
    assert (health["status"], all(health["workers"].values())) == ("ok", True), health
    assert oct((data_dir / "runtime.json").stat().st_mode)[-3:] == "600"
    assert oct(broker_socket(data_dir).parent.stat().st_mode)[-3:] == "700"

    second = start()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert str(first.pid) in said
    assert up.url in said

    members = family(first.pid)
    assert {"redis-server", "python"} <= {each.name().split(":")[0] for each in members} | {
        "python"
    }
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0
    assert f"(port {port} was taken)" in said
    assert alive(members) == []
    assert not broker_socket(data_dir).exists()
    assert runtime.read(data_dir) is None


def test_what_is_killed_comes_back_and_a_killed_supervisor_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    data_dir = tmp_path / "d"
    first = start("--port", "0")
    before = wait_up(data_dir, first).parts["build"]

    psutil.Process(before).children()[0].kill()  # the worker under its keeper

    def again() -> bool:
        found = runtime.read(data_dir)
        return found is not None and found.parts.get("build", before) != before

    wait_for(again)
    members = family(first.pid)
    first.kill()
    first.wait()
    wait_for(lambda: alive(members) == [])
    wait_up(data_dir, start("--port", "0"))


def test_a_part_that_cannot_start_shows_the_end_of_its_log(start: Start, tmp_path: Path) -> None:
    broker = tmp_path / "d" / "broker"
    broker.mkdir(parents=True)
    (broker / "appendonly.aof").write_text("not what Redis wrote\n" * 100)

    said, _ = (process := start("--port", "0")).communicate(timeout=UP_LIMIT_S)

    assert process.returncode == 1
    assert "redis ended with 1" in said
    assert "append only file" in said  # Redis' own words
    assert runtime.read(tmp_path / "d") is None


def test_a_full_disk_is_refused_at_once(start: Start) -> None:
    process = start(RETORT_MIN_FREE_BYTES=str(2**60))

    said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "RETORT_MIN_FREE_BYTES" in said
