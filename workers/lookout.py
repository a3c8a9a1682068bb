"""A drain's look around, once a second and whenever it needs to know: what the others do, what is
left of the budget, how much of each teacher is free, and whether there is a reason to stop."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import OperationalError

from service.shares import take_share
from service.site import Site
from service.waiting import wait_at_most
from workers import pulse, stopping
from workers.chunk import OpenChunk
from workers.faculty import Faculty
from workers.ledger import Entry
from workers.purse import Purse
from workers.stops import Stop
from workers.troubles import Troubles
from workers.watch import Watch, free_stale_chunks
from workers.window import Window
from workers.work import Work

log = logging.getLogger(__name__)

PULSE_S = 1.0

News = tuple[str, str | None]


class Lookout:
    """What a drain knows of the rest of the world. `chunks` are the open ones, as they come and
    go; `stop` is told why to stop."""

    def __init__(
        self,
        site: Site,
        work: Work,
        owner: str,
        watch: Watch,
        faculty: Faculty,
        window: Window,
        troubles: Troubles,
        chunks: list[OpenChunk],
        stop: Callable[[Stop], None],
    ) -> None:
        self.goal: int | None = work.goal
        self.purse = Purse(work.spec.budget, work.spec.max_in_flight)
        self._site, self._work, self._owner, self._watch = site, work, owner, watch
        self._faculty, self._window, self._troubles = faculty, window, troubles
        self._chunks, self._stop = chunks, stop
        self._now, self._looked = asyncio.Event(), asyncio.Event()
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()

    async def keep_looking(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except OperationalError as error:
                log.warning("%s: the database can't be reached: %s", self._work.job_id, error)
            await wait_at_most(self._now, PULSE_S)

    def soon(self) -> None:
        """Something has changed that others should know."""
        self._now.set()

    async def next_look(self) -> None:
        """Look now, and return when that is done."""
        self._now.set()
        await self._looked.wait()

    def note(self, chunk: OpenChunk, entry: Entry) -> None:
        """An answer was kept."""
        self.purse.pay(chunk.cost(entry))
        self._counts["requests"] += 1
        self._counts["completion_tokens"] += entry.call.completion_tokens

    async def _look(self) -> None:
        self._now.clear()
        counts: pulse.Counts = {
            chunk.lease: dict(chunk.counts) | chunk.spent() for chunk in self._chunks
        }
        mark, busy, news = self.purse.mark(), self._faculty.in_flight(), self._troubles.news()
        seen, shares = await asyncio.to_thread(self._ask_sql, counts, busy, self._rates(), news)
        self.goal = seen.goal
        for chunk in self._chunks:
            known = seen.before.get(chunk.lease.number or 0, 0)
            chunk.accepted_before = max(chunk.accepted_before, known)
        self._faculty.grant(shares)
        self._window.resize(max(1, self._work.spec.max_in_flight // seen.drainers))
        spent = seen.spent | {"gpu_s": seen.spent["wall_s"] * (self._work.gpus or 0)}
        left = self.purse.fill(spent, mark, seen.drainers, seen.place)
        reason = self._reason(seen, left)
        if reason is not None:
            self._stop(reason)
        self._looked.set()
        self._looked = asyncio.Event()

    def _reason(self, seen: pulse.Pulse, left: bool) -> Stop | None:
        if seen.paused:
            return "paused"
        if not seen.running:
            return "gone"
        if seen.cancelled:
            return "cancelled"
        if not left:
            return "budget"
        if stopping.requested.is_set():
            return "shutdown"
        drained_s = time.monotonic() - self._started
        return "yield" if seen.others_wait and drained_s > self._site.settings.yield_s else None

    def _ask_sql(
        self, counts: pulse.Counts, busy: dict[str, int], rates: dict[str, Any], news: News | None
    ) -> tuple[pulse.Pulse, dict[str, int]]:
        job_id, wanted = self._work.job_id, self._work.spec.max_in_flight
        with self._site.sessions.writing() as session:
            if news is not None:
                pulse.set_waiting(session, job_id, *news)
            seen = pulse.look(session, job_id, counts, self._owner, rates)
            shares = {
                # Before it holds a chunk nobody would know whose grant it is.
                name: take_share(session, name, self._owner, job_id, wanted, here) if counts else 0
                # In one order for all: each teacher's row is locked until the commit.
                for name, here in sorted(busy.items())
            }
            session.commit()
            free_stale_chunks(session, self._watch, job_id)
        return seen, shares

    def _rates(self) -> dict[str, Any]:
        elapsed = max(1e-9, time.monotonic() - self._started)
        return {
            "in_flight": self._window.in_flight,
            "requests_per_s": round(self._counts["requests"] / elapsed, 2),
            "completion_tokens_per_s": round(self._counts["completion_tokens"] / elapsed, 1),
        }
