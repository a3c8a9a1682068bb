"""The trainer as a child process of a command: this process holds no torch."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
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
        for line in _lines(child):
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
    if code == TERMINATED_CODE:
        raise Failure(
            {"title": f"{what} was stopped", "detail": "Run it again: it goes on."}, INTERRUPTED
        )
    detail = logged.strip()[-2000:] or f"it ended with code {code}"
    raise Failure({"title": f"{what} failed", "detail": detail}, JOB_FAILED)


def _lines(child: subprocess.Popen[str]) -> Any:
    """Of its standard output to the end, also where a person interrupts."""
    assert child.stdout is not None
    while True:
        try:
            line = child.stdout.readline()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            continue
        if not line:
            return
        yield line
