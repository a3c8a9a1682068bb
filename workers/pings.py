"""Which workers still hear control doorbells: asked from a thread of its own."""

import threading
import time

from celery import Celery

from service.broker import UNREACHABLE

PERIOD_S = 10.0
ANSWER_S = 3.0


class Pings:
    """Pings all workers of a broker and remembers when each answered last."""

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("retort-supervisor", broker=broker_url)
        self._celery.conf.broker_transport_options = {"socket_timeout": 5}
        self._answered: dict[str, float] = {}
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pings", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        self._wanted.set()

    def hurry(self) -> None:
        """Ask now: somebody waits for a first answer."""
        self._wanted.set()

    def answered_since(self, node: str, moment: float) -> bool:
        """Whether that worker answered after `moment` (monotonic)."""
        return self._answered.get(node, float("-inf")) > moment

    def silent_s(self, node: str, since: float) -> float:
        """Seconds since it answered, or since `since` (monotonic) if that is later."""
        return time.monotonic() - max(self._answered.get(node, since), since)

    def _run(self) -> None:
        while not self._closed:
            self._ask()
            self._wanted.wait(PERIOD_S)
            self._wanted.clear()

    def _ask(self) -> None:
        try:
            replies = self._celery.control.ping(timeout=1.0 if not self._answered else ANSWER_S)
        except UNREACHABLE:
            return
        at = time.monotonic()
        for reply in replies or []:
            self._answered.update(dict.fromkeys(reply, at))
