"""SIGTERM: at once while nothing is at stake, after the step under way while training."""

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


def raise_on_sigterm() -> None:
    """From here on SIGTERM raises Terminated."""
    signal.signal(signal.SIGTERM, _raise)


@contextlib.contextmanager
def deferred_sigterm() -> Iterator[Stop]:
    """Within, SIGTERM only sets `asked`. Outside the main thread signals don't arrive anyway."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
