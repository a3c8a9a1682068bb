"""`retort up` and `retort down`: the embedded stack, run by `python -m workers.supervisor`; and
`retort worker`, a part of it on another host."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from service import runtime
from service.cli.failure import JOB_FAILED, bad_input
from service.cli.options import Json, Screen, load_settings, screen

START_LIMIT_S = 180.0
STOP_LIMIT_S = 40.0
POLL_S = 0.2

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where everything is kept; RETORT_DATA_DIR.")
]


def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address that the API listens on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API; the next free one if it is taken.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is up; stop with `retort down`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring up Redis, API and workers; Ctrl-C stops all of it."""
    # By name: the service knows nothing of the workers' code.
    command = [sys.executable, "-m", "workers.supervisor"]
    chosen = {"--data-dir": data_dir, "--host": host, "--port": port}
    for option, value in chosen.items():
        command += [option, str(value)] if value is not None else []
    if detach:
        _detach(command, load_settings(data_dir).data_dir, screen(as_json))
        return
    sys.stdout.flush()
    os.execv(command[0], command)


def worker(
    queues: Annotated[
        str, typer.Option(help="What to work on: build, train, serve, control; with commas.")
    ] = "build,train,serve,control",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Tasks at once; by default as `retort up` has them.")
    ] = None,
) -> None:
    """Run a worker on this host. It needs the same URLs and artifact root as the others."""
    settings = load_settings()
    usual = {
        "build": settings.build_concurrency,
        "train": settings.device_slots,
        "serve": settings.device_slots,
        "control": 2,
    }
    wanted = [name.strip() for name in queues.split(",")]
    unknown = [name for name in wanted if name not in usual]
    if unknown:
        raise bad_input("No such queue", f"{unknown[0]!r}; there are {', '.join(usual)}")
    threads = concurrency or sum(usual[name] for name in wanted)
    node = f"{'-'.join(wanted)}@{socket.gethostname()}-{os.getpid()}"
    options = ("-Q", ",".join(wanted), "-P", "threads", "-c", str(threads), "-n", node)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", *options, *quiet]
    sys.stdout.flush()
    os.execv(command[0], command)


def down(data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop the stack that is up on the data directory."""
    folder, out = load_settings(data_dir).data_dir, screen(as_json)
    found = runtime.read(folder)
    if found is None or not runtime.alive(found):
        out.say(f"nothing is up on {folder}")
        _say_down(out, folder, stopped=False)
        return
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT_S
    while runtime.alive(found):
        if time.monotonic() > deadline:
            raise bad_input("It did not stop", f"pid {found.pid} is still there; see {folder}/logs")
        time.sleep(POLL_S)
    out.say(f"stopped, pid {found.pid}, {folder}")
    _say_down(out, folder, stopped=True)


def _say_down(out: Screen, folder: Path, *, stopped: bool) -> None:
    if out.json:
        out.document({"data_dir": str(folder), "stopped": stopped})


def _detach(command: list[str], data_dir: Path, out: Screen) -> None:
    """Start the supervisor in a session of its own and show its lines until it is up."""
    log = data_dir / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with log.open("r", encoding="utf-8", errors="replace") as lines:
        deadline = time.monotonic() + START_LIMIT_S
        while not _is_up(data_dir, process.pid):
            _pass_on(lines.read(), out)
            if (code := process.poll()) is not None or time.monotonic() > deadline:
                _pass_on(lines.read(), out)
                raise typer.Exit(code or JOB_FAILED)
            time.sleep(POLL_S)
        _pass_on(lines.read(), out)
    if out.json:
        found = runtime.read(data_dir)
        out.document(found.model_dump(mode="json") if found is not None else {})


def _is_up(data_dir: Path, pid: int) -> bool:
    found = runtime.read(data_dir)
    return found is not None and found.pid == pid and found.ready


def _pass_on(text: str, out: Screen) -> None:
    for line in text.splitlines():
        out.say(line)
