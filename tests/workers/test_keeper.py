import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.workers.conftest import wait_for
from workers import keeper


def start(program: list[str], grace_s: float = 5.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        keeper.command(program, os.getpid(), grace_s),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_in(file: Path) -> int:
    wait_for(lambda: file.exists() and file.read_text().strip())
    return int(file.read_text())


def test_exit_codes_are_passed_on() -> None:
    with start(["sh", "-c", "echo said; exit 3"]) as kept:
        assert kept.stdout is not None
        assert kept.stdout.read() == b"said\n"
    assert kept.returncode == 3


def test_a_signals_death_is_128_and_its_number() -> None:
    with start(["sh", "-c", "kill -9 $$"]) as kept:
        assert kept.wait(30) == 128 + signal.SIGKILL


def test_a_command_that_is_not_there_ends_with_127() -> None:
    with start(["/no/such/program"]) as kept:
        assert kept.wait(30) == 127
        assert kept.stderr is not None
        assert b"/no/such/program" in kept.stderr.read()


def test_what_the_command_left_behind_is_killed(tmp_path: Path) -> None:
    left = tmp_path / "pid"
    # In a session of its own, so that no process group reaches it.
    script = f"setsid sh -c 'echo $$ > {left}; exec sleep 1000' & while [ ! -s {left} ]; do :; done"
    with start(["sh", "-c", script]) as kept:
        kept.wait(30)
    assert gone(pid_in(left))


def test_sigterm_is_followed_by_sigkill(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > {ready}; while :; do sleep 1; done"
    with start(["sh", "-c", script], grace_s=0.2) as kept:
        pid = pid_in(ready)
        kept.terminate()
        assert kept.wait(30) == 128 + signal.SIGKILL
    assert gone(pid)


def test_the_parents_death_ends_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"""
import os, subprocess
from workers import keeper
program = ["sh", "-c", "echo $$ > {pid_file}; exec sleep 1000"]
subprocess.Popen(keeper.command(program, os.getpid(), 60), start_new_session=True).wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    pid = pid_in(pid_file)
    assert not gone(pid)

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    wait_for(lambda: gone(pid))


def test_the_keepers_own_death_ends_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with start(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 1000"]) as kept:
        pid = pid_in(pid_file)
        kept.kill()
        kept.wait(30)
        wait_for(lambda: gone(pid))
