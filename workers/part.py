"""One part of the embedded stack: a process with a log, started, watched, restarted, stopped."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from workers import keeper

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
SETTLED_S = 60.0
"""After so long a life the next death is a new story: the backoff starts again."""
LOG_LIMIT_BYTES = 20 * 2**20


@dataclass(frozen=True)
class PartPlan:
    """What a part runs."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: dict[str, str]
    ready: Callable[[], bool]
    """Asked again and again until it says yes."""
    says: str
    """What the line about its being ready tells."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    listens: bool = False
    """Answers control pings: one that stops doing so is restarted."""


@dataclass
class Part:
    """A part as it runs. Start it from a thread that lives as long as the part: the kernel takes
    the end of that thread for the parent's death."""

    plan: PartPlan
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    """In a row, without a settled life in between."""
    start_again_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Start it in a session of its own, under a keeper."""
        _rotate(self.plan.log)
        with self.plan.log.open("ab") as log:
            self.process = subprocess.Popen(
                keeper.command(list(self.plan.command), os.getpid(), self.plan.grace_s),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.plan.environment,
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    def died(self) -> int | None:
        """Its exit code, once, when it has ended; sets when it may start again."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        settled = time.monotonic() - self.started_at >= SETTLED_S
        self.deaths = 1 if settled else self.deaths + 1
        backoff_s = min(FIRST_BACKOFF_S * 2 ** (self.deaths - 1), LONGEST_BACKOFF_S)
        self.start_again_at = time.monotonic() + backoff_s
        self.process = None
        return code

    def due(self) -> bool:
        """Whether it is dead and its backoff is over."""
        return self.process is None and time.monotonic() >= self.start_again_at

    def keep_log_short(self) -> None:
        """Move a log that has grown too long aside while its part goes on writing to it."""
        log = self.plan.log
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            # The part holds the file itself, opened for appending: what it writes next lands at
            # the new end. What it writes between copy and cut is lost. A full disk keeps of the
            # copy what fits, and is given the room of the log.
            with contextlib.suppress(OSError):
                shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def ask_to_stop(self) -> None:
        """SIGTERM, by way of the keeper, which kills after the grace."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of its log."""
        return last_lines(self.plan.log, count)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a file that may not exist, be large or be cut inside a character."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
