"""A real server in a process of its own, for benchmarks of the API."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from service.addresses import ALIVE

START_S = 60.0


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    process: psutil.Process

    @property
    def rss_bytes(self) -> int:
        """Its memory now."""
        return int(self.process.memory_info().rss)


@contextmanager
def running(app: str, data_dir: Path, database_url: str | None = None) -> Iterator[Server]:
    """`uvicorn APP` on a free port, its broker away: doorbells cost one failed connection."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = os.environ | {
        "RETORT_DATA_DIR": str(data_dir),
        "RETORT_BROKER_URL": f"redis+socket://{data_dir}/none.sock",
        "RETORT_RECONCILE_S": "3600",
    }
    if database_url is not None:
        environment["RETORT_DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log"]
    with open(data_dir / "server.log", "ab") as log:
        process = subprocess.Popen(
            [*command, "--log-level", "error"], env=environment, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        yield Server(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}{ALIVE}").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")
