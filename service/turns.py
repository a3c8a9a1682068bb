"""Turns at a teacher for chats that come through the API: its registered limit holds for them too.

An API process is one party among the builds and batches (service/shares.py). While it has chats for
a teacher it looks at SQL once a second, and at once when one waits: it says how many it has and is
granted a share, which its chats take turns in. Its grant holds `GRANT_S` beyond the last look, by
the clocks of the API processes, so a process that died blocks nobody for long.
"""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from service.pace import Pace
from service.problems import too_many
from service.shares import give_share_back, take_share
from service.site import Site
from service.tables import now
from service.waiting import wait_at_most

log = logging.getLogger(__name__)

LOOK_S = 1.0
SOONEST_S = 0.05
"""However many chats come: SQL is asked no more often."""
GRANT_S = 30.0


class Turns:
    """All chats under way in one API process. Lives on the application's event loop."""

    def __init__(self) -> None:
        self._party = f"chat-{uuid.uuid4().hex[:12]}"
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, site: Site, teacher: str) -> AsyncIterator[None]:
        """Holds a place of a teacher with a limit for one request. Raises a 429 problem if none is
        free within the teacher's patience."""
        queue = self._queues.setdefault(teacher, _Queue(site, teacher, self._party))
        await queue.take()
        try:
            yield
        finally:
            queue.leave()

    async def close(self) -> None:
        """Give back what is held; nothing more is asked."""
        for queue in self._queues.values():
            await queue.close()


class _Queue:
    """The chats of one teacher in this process."""

    def __init__(self, site: Site, teacher: str, party: str) -> None:
        self._site, self._teacher, self._party = site, teacher, party
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{party}:{teacher}"
        self._pace = Pace(0)
        self._here = 0
        self._waits = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def take(self) -> None:
        self._here += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking())
        if self._pace.in_flight >= self._pace.limit:
            self._waits.set()
        try:
            await self._enter()
        except BaseException:
            self._here -= 1
            raise

    async def _enter(self) -> None:
        patience_s = self._site.settings.teacher_patience_s
        try:
            async with asyncio.timeout(patience_s):
                await self._pace.enter()
        except TimeoutError as error:
            detail = (
                f"Teacher {self._teacher} has no place free within {patience_s:g} s: its"
                " max_in_flight is taken by other requests. Try again, or raise its limit."
            )
            raise too_many("teacher-busy", "The teacher is busy", detail, LOOK_S) from error

    def leave(self) -> None:
        self._here -= 1
        self._pace.leave()

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
            await asyncio.to_thread(self._give_back)

    async def _keep_looking(self) -> None:
        while self._here:
            await self._look_until_idle()
            # Whoever comes from here on waits for a new look.
            self._pace.grant(0)
            with contextlib.suppress(SQLAlchemyError):
                await asyncio.to_thread(self._give_back)
        self._looking = None

    async def _look_until_idle(self) -> None:
        while self._here:
            self._waits.clear()
            try:
                share = await asyncio.to_thread(self._look, self._here, self._pace.in_flight)
                self._pace.grant(share)
            except SQLAlchemyError as error:
                log.warning("%s: the database: %s", self._teacher, error)
            await asyncio.sleep(SOONEST_S)
            await wait_at_most(self._waits, LOOK_S)

    def _look(self, here: int, in_flight: int) -> int:
        until = now() + timedelta(seconds=GRANT_S)
        with self._site.sessions.writing.begin() as session:
            return take_share(
                session, self._teacher, self._owner, self._party, here, in_flight, until
            )

    def _give_back(self) -> None:
        with self._site.sessions.writing() as session:
            give_share_back(session, self._owner)
