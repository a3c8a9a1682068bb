"""One sliding window of requests: never a barrier, so the teacher never waits at an end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


def spare(limit: int) -> int:
    """How many answers may be made durable beside `limit` requests under way."""
    return max(1, limit // 4)


class Slot:
    """A request's place in a window."""

    def __init__(self, window: "Window"):
        self._window = window
        self._asks, self._kept = True, False

    def answered(self) -> None:
        """The teacher is free for another request while this one's answer is being kept."""
        self._window._move(-1, 1)
        self._asks, self._kept = False, True

    def free(self) -> None:
        """The request is over."""
        self._window._move(-int(self._asks), -int(self._kept))
        self._asks = self._kept = False


class Window:
    """At most `limit` requests under way at once; the limit may move meanwhile.

    Tasks are rows, slots are requests: a row that asks for several things at once takes several
    slots. No more than `limit` rows wait for the teacher, and none starts while one that runs waits
    for a slot. Beside them answers are being made durable, `spare` at most: a teacher needn't wait
    for a disk, and what is paid while the disk stands still is little.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._taken = self._keeping = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        """Rows under way."""
        return len(self._tasks)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._taken

    def resize(self, limit: int) -> None:
        """Let more or fewer run; those under way run on."""
        self._limit = limit
        self._update()

    async def room(self) -> None:
        """Returns as soon as one more row may start."""
        await self._room.wait()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a row, to be called after `room`. The caller looks after its exceptions."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._update()
        return task

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Holds a slot for one request; first come, first served."""
        await self._take()
        slot = Slot(self)
        try:
            yield slot
        finally:
            slot.free()

    async def close(self) -> None:
        """Cancel what is left and wait until it is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._update()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._move(-1, 0)  # It was given a slot in the moment that it was cancelled.
            raise

    def _move(self, taken: int, keeping: int) -> None:
        self._taken += taken
        self._keeping += keeping
        self._update()

    @property
    def _free(self) -> bool:
        within = self._taken + self._keeping < self._limit + spare(self._limit)
        return within and self._taken < self._limit

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._update()

    def _update(self) -> None:
        while self._queue and (self._queue[0].done() or self._free):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._taken += 1
        if len(self._tasks) - self._keeping < self._limit and not self._queue:
            self._room.set()
        else:
            self._room.clear()
