"""A child process of a task: started under a keeper, listened to, stopped in time."""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil

from workers import keeper
from workers.data_lock import kill_tree
from workers.part import last_lines

log = logging.getLogger(__name__)

Why = Literal["cancelled", "paused", "stopping", "lost"]
"""Why a child was ended from outside: its job was cancelled or is to pause, this worker stops, or
the lease was lost and somebody else does the work now."""
LOOK_S = 0.25
GRACE_S = 30.0
"""From SIGTERM to SIGKILL: time to write a checkpoint."""
LOG_LINES = 20


@dataclass(frozen=True)
class Ended:
    """How a child process ended."""

    code: int
    """Its exit code; 128 + n for signal n."""
    stopped: Why | None
    error: dict[str, Any] | None
    """The last `error` event, if it sent one."""
    result: dict[str, Any]
    """The `done` event's result."""
    log: tuple[str, ...]
    """The last lines of its log."""

    @property
    def words(self) -> str:
        """What it said was wrong, else the end of its log."""
        if self.error is None:
            return "\n".join(self.log[-8:])
        title, detail = self.error.get("title", ""), self.error.get("detail", "")
        return f"{title}: {detail}" if detail else str(title)


def run_process(
    command: list[str],
    log_file: Path,
    on_event: Callable[[str, dict[str, Any]], None],
    stop: Callable[[], Why | None],
    grace_s: float = GRACE_S,
) -> Ended:
    """Run `command`, hand on each event that it writes to standard output, until it ends.

    `stop` is asked four times a second. `lost` kills at once: two must not write the same
    checkpoints; the other answers ask the process to end and give it `grace_s`.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as errors:
        process = subprocess.Popen(
            keeper.command(command, os.getpid(), grace_s),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        return _listen(process, log_file, on_event, stop)
    finally:
        # Whatever was raised on the way, nothing stays behind.
        if process.poll() is None:
            end_now(process)


def end_now(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a keeper and everything under it, and collect it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kill_tree(psutil.Process(process.pid))
    process.wait()


def _listen(
    process: subprocess.Popen[bytes],
    log_file: Path,
    on_event: Callable[[str, dict[str, Any]], None],
    stop: Callable[[], Why | None],
) -> Ended:
    lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    stopped: Why | None = None
    error: dict[str, Any] | None = None
    result: dict[str, Any] = {}
    looked_at = 0.0
    while True:
        event = _next(lines)
        if event is None:
            break
        name = str(event.pop("event", ""))
        if name == "error":
            error = event
        elif name == "done":
            result = event.get("result") or {}
        if name:
            on_event(name, event)
        if time.monotonic() - looked_at < LOOK_S:
            continue
        looked_at = time.monotonic()
        why = stop()
        if why == "lost" and stopped != "lost":
            stopped = why
            end_now(process)
        elif why is not None and stopped is None:
            stopped = why
            process.send_signal(signal.SIGTERM)
    code = process.wait()
    return Ended(code, stopped, error, result, tuple(last_lines(log_file, LOG_LINES)))


def _next(lines: "queue.SimpleQueue[dict[str, Any] | None]") -> dict[str, Any] | None:
    """The next event; an empty one if there is none for a while; None at the end."""
    try:
        return lines.get(timeout=LOOK_S)
    except queue.Empty:
        return {}


def _read(stream: IO[bytes], lines: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    with stream:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                log.warning("not an event: %s", line[:200])
                continue
            if isinstance(event, dict):
                lines.put(event)
    lines.put(None)
