"""The trainer as a child process of a command: this process holds no torch."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from service.cli.failure import INTERRUPTED, JOB_FAILED, Failure, bad_input

BAD_INPUT_CODE = 2
"""How `python -m trainer` ends for it."""
TERMINATED_CODE = 143
Heard = Callable[[dict[str, Any]], None]


def run_trainer(words: list[str], what: str, heard: Heard) -> dict[str, Any]:
    """Run `python -m trainer WORDS`; the result of its `done` event, each event as it comes.

    Ctrl-C ends it as SIGTERM does: a training writes a checkpoint first. Raises Failure with what
    the trainer told, or the end of its log; `what` names what failed.
    """
    command = [sys.executable, "-m", "trainer", *words]
    last: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as child,
    ):
        with _interrupts_reach(child):
            for line in child.stdout or ():
                last = json.loads(line)
                heard(last)
            code = child.wait()
        log.seek(0)
        logged = log.read()
    if code == 0 and last.get("event") == "done":
        result: dict[str, Any] = last["result"]
        return result
    if code == BAD_INPUT_CODE and last.get("event") == "error":
        raise bad_input(last["title"], last["detail"])
    if code in (TERMINATED_CODE, -signal.SIGTERM):
        detail = (
            "Run it again: a training that had begun goes on where it was; all else begins anew."
        )
        raise Failure({"title": f"{what} was stopped", "detail": detail}, INTERRUPTED)
    if last.get("event") == "error":
        raise Failure({"title": last["title"], "detail": last["detail"]}, JOB_FAILED)
    detail = logged.strip()[-2000:] or f"it ended with code {code}"
    raise Failure({"title": f"{what} failed", "detail": detail}, JOB_FAILED)


@contextmanager
def _interrupts_reach(child: "subprocess.Popen[str]") -> Iterator[None]:
    """Ctrl-C asks the child to end, whatever this process is doing just then."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # in the background of a script nobody can press it
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: child.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
