"""How many requests one teacher is sent at once: one more per window answered, half when it says
that it is too many (AIMD: Chiu and Jain, 1989)."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable


class Pace:
    """The places of one teacher in one drain, given out in the order they are asked for.

    `most` is what this drain may take of the teacher; what the teacher bears is found out below
    it. A cut counts once per window: refusals of requests sent before it say nothing new.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.in_flight = 0
        self._clock = clock
        self._bears = math.inf
        self._cut_at = float("-inf")
        self._closed_until = float("-inf")
        self._halted = self._shut = False
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(min(self.most, self._bears))

    async def enter(self) -> bool:
        """Take a place as soon as there is one and the teacher's Retry-After is over. False, and
        none taken, if the waiting was ended by `release` or `shut`."""
        if self._shut:
            return False
        if not self._waiting and self._free():
            self.in_flight += 1
            return True
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._wake_when_open()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._wake()

    def grant(self, most: int) -> None:
        """Another share of the teacher."""
        self.most = most
        self._wake()

    def answered(self) -> None:
        """The teacher kept up: one place more per window of answers."""
        self._bears += 1 / self._bears
        if 0 < self.most <= self._bears:
            self._bears = math.inf  # It bears all that it may be sent.
        self._wake()

    def refused(self, sent_at: float, retry_after_s: float | None) -> None:
        """Too much, or too slow: half as many, and none before the time it said."""
        if sent_at > self._cut_at:
            self._bears = max(1.0, min(self._bears, float(self.most)) / 2)
            self._cut_at = self._clock()
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, self._clock() + retry_after_s)

    def halt(self) -> None:
        """Give out no place until `go_on`."""
        self._halted = True

    def go_on(self) -> None:
        """The teacher answers again."""
        self._halted = False
        self._wake()

    def release(self) -> None:
        """Send away whoever waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(False)

    def shut(self) -> None:
        """Nothing more is to be asked."""
        self._shut = True
        self.release()

    def _free(self) -> bool:
        closed = self._halted or self._clock() < self._closed_until
        return not closed and self.in_flight < self.limit

    def _wake(self) -> None:
        self._timer = None
        while self._waiting and self._free():
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(True)
        self._wake_when_open()

    def _wake_when_open(self) -> None:
        wait_s = self._closed_until - self._clock()
        if self._waiting and wait_s > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s + 0.001, self._wake)
