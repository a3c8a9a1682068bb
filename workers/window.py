"""One sliding window of rows under way: never a barrier, so the teacher never waits at an end."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Window:
    """At most `limit` tasks at once; the limit may move while they run."""

    def __init__(self, limit: int):
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._tasks)

    def resize(self, limit: int) -> None:
        """Let more or fewer tasks run; those under way run on."""
        self._limit = limit
        self._update()

    async def room(self) -> None:
        """Returns as soon as one more task may start."""
        await self._room.wait()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, to be called after `room`. The caller looks after its exceptions."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._update()
        return task

    async def close(self) -> None:
        """Cancel what is left and wait until it is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._update()

    def _update(self) -> None:
        if len(self._tasks) < self._limit:
            self._room.set()
        else:
            self._room.clear()
