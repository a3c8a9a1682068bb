"""Stands between a process and its parent, so that neither's death leaves anything running.

    python -I -S workers/keeper.py PARENT_PID GRACE_S COMMAND...

Runs COMMAND in the keeper's own session. When the parent dies, even by SIGKILL, or asks with
SIGTERM, COMMAND gets SIGTERM; what is left of it and its descendants after GRACE_S gets SIGKILL.
When COMMAND ends, descendants that it left behind are killed too. Exits as COMMAND did, 128 + n for
signal n. Only Linux has what this needs. Imports nothing of this project: it must start in
milliseconds, under any Python.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORPHAN_GRACE_S = 5.0
"""Without a parent, less time: whoever takes the work over waits for a lease of 15 s or more."""
WAKE = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def command(program: list[str], parent: int, grace_s: float) -> list[str]:
    """`program` as a keeper's command line. Start it with `start_new_session=True`."""
    return [sys.executable, "-I", "-S", __file__, str(parent), str(grace_s), *program]


def main(parent: int, grace_s: float, program: list[str]) -> int:
    """Keep `program` until it ends; its exit code."""
    # Blocked signals wait for sigtimedwait: no handler, no race, no polling.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM  # The parent died before the line above.
    child = _start(program, unblocked)
    deadline: float | None = None
    while True:
        status = _reap(child)
        if status is not None:
            _kill_descendants()
            return status
        woken = signal.sigtimedwait(WAKE, _wait_s(deadline))
        if woken is not None and woken.si_signo != signal.SIGCHLD and deadline is None:
            orphan = os.getppid() != parent
            deadline = time.monotonic() + (min(grace_s, ORPHAN_GRACE_S) if orphan else grace_s)
            _signal(child, signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            _signal(child, signal.SIGKILL)


def _start(program: list[str], unblocked: set[int]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        # Should somebody kill the keeper itself, its child goes too.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.execvp(program[0], program)
    except OSError as error:
        print(f"can't start {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _reap(child: int) -> int | None:
    """Collect the dead; the exit code of `child` if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            code = os.waitstatus_to_exitcode(ended)
            status = code if code >= 0 else 128 - code


def _kill_descendants() -> None:
    """Everything that was left behind has become a child of this process: it is the subreaper."""
    while children := _children():
        for pid in children:
            _signal(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    return [
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == os.getpid()
    ]


def _parent(pid: str) -> int | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses of its own.
    return int(status.rpartition(")")[2].split()[1])


def _wait_s(deadline: float | None) -> float:
    return 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
