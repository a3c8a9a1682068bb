"""The whole stack with a model that it serves by vLLM, for benchmarks of whole jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from service import runtime
from service.addresses import API

START_S = 180.0
SERVED_S = 600.0
JOB_S = 3600.0
LOOK_S = 0.5
"""Looking takes the API's time, and the job shares the processor with it."""
ENDED = ("succeeded", "failed", "cancelled", "paused")


@dataclass(frozen=True)
class Stack:
    """A stack that is up."""

    api: httpx.Client
    data_dir: Path
    teacher_url: str = ""

    def upload(self, name: str, lines: str) -> str:
        """The id of an uploaded file."""
        sent = self.api.post(f"{API}/files", params={"name": name}, content=lines.encode())
        return str(sent.raise_for_status().json()["id"])

    def build(self, spec: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds from a build's submit to its end, and the job."""
        begun = datetime.now(UTC)
        job = self._follow({"kind": "build", "build": spec}, ENDED, JOB_S)
        if job["state"] != "succeeded":
            raise AssertionError(f"the build ended {job['state']}: {job['detail']}")
        return (datetime.fromisoformat(job["finished_at"]) - begun).total_seconds(), job

    def worker_cpu_s(self) -> float:
        """Processor seconds of the stack without vLLM, so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self._workers())

    def worker_rss_mib(self) -> float:
        """Memory of the same."""
        return sum(float(one.memory_info().rss) for one in self._workers()) / 2**20

    def _workers(self) -> list[psutil.Process]:
        found = runtime.read(self.data_dir)
        assert found is not None
        below = psutil.Process(found.pid).children(recursive=True)
        return [one for one in below if "celery" in " ".join(one.cmdline())]

    def _follow(self, spec: dict[str, Any], ends: tuple[str, ...], limit_s: float) -> Any:
        job = self.api.post(f"{API}/jobs", json=spec).raise_for_status().json()["id"]
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            found = self.api.get(f"{API}/jobs/{job}").raise_for_status().json()
            if found["state"] in ends:
                return found
            time.sleep(LOOK_S)
        raise TimeoutError(f"{job} is still {found['state']}")

    def _serve(self, model: Path) -> str:
        """The URL of the model, served as the teacher `t`."""
        spec = {"kind": "serve", "model": str(model), "name": "t"}
        self._follow(spec, ("running", *ENDED), SERVED_S)
        until = time.monotonic() + SERVED_S
        while time.monotonic() < until:
            answer = self.api.get(f"{API}/teachers/t")
            if answer.status_code == 200 and answer.json()["probe"].get("ok"):
                return str(answer.json()["base_url"])
            time.sleep(0.5)
        raise TimeoutError(f"vLLM does not serve {model}; see {self.data_dir}/logs")


@contextmanager
def running(folder: Path, model: Path) -> Iterator[Stack]:
    """Redis, API, workers and vLLM with this model, until the block ends."""
    command = [sys.executable, "-m", "workers.supervisor", "--data-dir", str(folder), "--port", "0"]
    environment = os.environ | {"RETORT_MIN_FREE_BYTES": "0"}
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        with httpx.Client(base_url=_url(process, folder), timeout=60, trust_env=False) as api:
            stack = Stack(api, folder)
            yield Stack(api, folder, stack._serve(model))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _url(process: "subprocess.Popen[bytes]", folder: Path) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        found = runtime.read(folder)
        if found is not None and found.ready:
            return found.url
        time.sleep(0.2)
    raise TimeoutError((folder / "up.log").read_text())
