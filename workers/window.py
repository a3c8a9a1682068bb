"""One sliding window of requests: never a barrier, so the teacher never waits at an end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


class Window:
    """At most `limit` requests under way at once; the limit may move meanwhile.

    Tasks are rows, slots are requests: a row that asks for several things at once takes several
    slots. No more than `limit` rows run, and none starts while one that runs waits for a slot.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._taken = 0
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
    async def slot(self) -> AsyncIterator[None]:
        """Holds a slot for one request; first come, first served."""
        await self._take()
        try:
            yield
        finally:
            self._free()

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
                self._free()  # It was given a slot in the moment that it was cancelled.
            raise

    def _free(self) -> None:
        self._taken -= 1
        self._update()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._update()

    def _update(self) -> None:
        while self._queue and (self._queue[0].done() or self._taken < self._limit):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._taken += 1
        if len(self._tasks) < self._limit and not self._queue:
            self._room.set()
        else:
            self._room.clear()
