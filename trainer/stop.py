"""SIGTERM and Ctrl-C: at once while nothing is at stake, in training after the step under way."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from trainer.errors import Terminated


@dataclass
class Stop:
    """Whether the run was asked to end."""

    asked: bool = False


def raise_on_stop() -> None:
    """From here on SIGTERM and Ctrl-C raise Terminated."""
    for one in _heard():
        signal.signal(one, _raise)


@contextlib.contextmanager
def deferred_stop() -> Iterator[Stop]:
    """Within, both only set `asked`. Outside the main thread signals don't arrive anyway."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    before = {one: signal.signal(one, ask) for one in _heard()}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _heard() -> list[signal.Signals]:
    """Ctrl-C where anybody can press it: a script's background ignores it."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGINT]


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
