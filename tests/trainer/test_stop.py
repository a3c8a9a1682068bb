"""How a run hears that it is to end."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from trainer.errors import Terminated
from trainer.stop import deferred_stop, raise_on_stop


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_goes_through_whatever_catches_all_exceptions(sent: signal.Signals) -> None:
    raise_on_stop()
    with pytest.raises(Terminated), contextlib.suppress(Exception):
        os.kill(os.getpid(), sent)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_deferred_stop_is_kept_until_it_is_asked_for(sent: signal.Signals) -> None:
    raise_on_stop()
    with deferred_stop() as stop:
        before = stop.asked
        os.kill(os.getpid(), sent)
        assert (before, stop.asked) == (False, True)
    with pytest.raises(Terminated):
        os.kill(os.getpid(), sent)


def test_who_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_on_stop()
    with deferred_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.asked
