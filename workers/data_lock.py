"""One stack per data directory: a lock that dies with its holder, whatever kills it."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

import psutil

from service import runtime

LOCK_FILE = "up.lock"
LEFTOVER_WAIT_S = 12.0
"""Keepers of a supervisor that was killed stop their parts by themselves; this is how long they
may take."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of the program
    """The stack can't come up; the message tells a person why and what to do."""


class DataLock:
    """Holds the data directory for this process until it ends."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the directory and lock it. Raises Refused if it is in use or not writable."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Never inherited: children must not keep the lock of a supervisor that was killed.
            descriptor = os.open(self.data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(f"{self.data_dir} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Refused(_in_use(self.data_dir)) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another supervisor have the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def clear_leftovers(data_dir: Path) -> int:
    """Wait for what a killed supervisor left running, kill what stays; how many there were.

    Call it with the lock held: only then is what runtime.json names left over.
    """
    known = runtime.read(data_dir)
    if known is None:
        return 0
    keepers = [found for pid in known.parts.values() if (found := _keeper(pid)) is not None]
    _, stubborn = psutil.wait_procs(keepers, timeout=LEFTOVER_WAIT_S)
    for keeper in stubborn:
        kill_tree(keeper)
    runtime.remove(data_dir)
    return len(keepers)


def kill_tree(process: psutil.Process) -> None:
    """SIGKILL a process and its descendants, the descendants first found."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def _keeper(pid: int) -> psutil.Process | None:
    """The process, if that pid is still a keeper: numbers are used again."""
    try:
        process = psutil.Process(pid)
        return process if any(word.endswith("keeper.py") for word in process.cmdline()) else None
    except psutil.NoSuchProcess:
        return None


def _in_use(data_dir: Path) -> str:
    # The holder writes its description a moment after it took the lock.
    for _ in range(20):
        if (found := runtime.read(data_dir)) is not None:
            state = "is up" if found.ready else "is coming up"
            return (
                f"retort {state} on {data_dir}: pid {found.pid}, {found.url}\n"
                "Stop it with Ctrl-C there or `retort down`, or give another --data-dir."
            )
        time.sleep(0.1)
    return f"another retort is using {data_dir}; wait a moment, or give another --data-dir."
