"""Symbolic equivalence, in a child process: sympy can hang or eat all memory on a short text."""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time

from prompts.verify.errors import VerifyError

LONGEST_ANSWER = 2_000
"""Characters; anything longer is no answer to compare."""
START_S = 120.0
"""Importing sympy takes seconds, on a busy machine many."""


def same_expression(answer: str, gold: str, timeout_s: float) -> bool:
    """Whether both are the same mathematical expression or number, by math-verify.

    Raises VerifyError if that takes longer than `timeout_s` or the child dies of it (of too much
    memory, say); it is killed, and the next comparison starts another.
    """
    if max(len(answer), len(gold)) > LONGEST_ANSWER:
        return False
    return _child().same(answer, gold, timeout_s)


class _Child:
    """A process that compares, one pair at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def same(self, answer: str, gold: str, timeout_s: float) -> bool:
        question = json.dumps({"answer": answer, "gold": gold, "cpu_s": timeout_s}).encode() + b"\n"
        with self._lock:
            process = self._process = self._process or self._start()
            try:
                reply = _exchange(process, question, timeout_s)
            except TimeoutError:
                self.end()
                raise VerifyError(
                    f"comparing with {gold[:80]!r} took over {timeout_s:g} s"
                ) from None
            except (OSError, EOFError):
                self.end()
                raise VerifyError(f"comparing with {gold[:80]!r} ended its process") from None
        if "error" in reply:
            raise VerifyError(str(reply["error"]))
        return reply["same"] is True

    def end(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "prompts.verify.symbolic_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._process = process
        try:
            _read_line(process, START_S)
        except (TimeoutError, EOFError) as error:
            self.end()
            raise VerifyError("the process that compares expressions did not start") from error
        return process


_children: dict[int, _Child] = {}
"""By process: a fork must not share its parent's pipes."""


def _child() -> _Child:
    if os.getpid() not in _children:
        _children[os.getpid()] = _Child()
        atexit.register(_children[os.getpid()].end)
    return _children[os.getpid()]


def _exchange(
    process: "subprocess.Popen[bytes]", question: bytes, timeout_s: float
) -> dict[str, object]:
    assert process.stdin is not None
    process.stdin.write(question)
    reply = json.loads(_read_line(process, timeout_s))
    assert isinstance(reply, dict)
    return reply


def _read_line(process: "subprocess.Popen[bytes]", timeout_s: float) -> bytes:
    assert process.stdout is not None
    until, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError
        part = os.read(process.stdout.fileno(), 65536)
        if not part:
            raise EOFError
        line += part
    return line
