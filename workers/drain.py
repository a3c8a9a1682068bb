"""Draining a build: one sliding window of requests over the few chunks that this worker leases.

A worker's window is its share of the job's `max_in_flight`: the limit divided by the number of
workers that hold chunks of the job, looked up once a second. Right after a worker joins, the two
together may for a second have more in flight than the limit.
"""

import asyncio
import logging
import math
import time

import aiohttp

from prompts.plan import NotNeeded, Request, Step
from prompts.record import Record, Rejected, Seed
from service.asking import TeacherError
from service.shares import give_share_back
from service.site import Site
from workers.chunk import OpenChunk, close_chunk, open_chunk
from workers.faculty import Faculty
from workers.lease import Heart, Lease, claim_chunk, release
from workers.ledger import LeaseLostError, until_written, wait_until_held
from workers.lookout import Lookout
from workers.rounds import round_rows
from workers.sql import in_session
from workers.stops import GRACE_S, SOFT, Stop
from workers.troubles import Troubles
from workers.warmup import Warmup
from workers.watch import Watch
from workers.window import Window
from workers.work import Work

log = logging.getLogger(__name__)

LOST_LOOK_S = 0.1


async def drain(
    site: Site, work: Work, owner: str, heart: Heart, watch: Watch, only: int | None = None
) -> Stop | None:
    """Work on the job's chunks until none can be claimed, or something says stop; with `only` on
    the chunk of that number.

    Raises what makes the job pause or fail: `TeacherError`, `LedgerDamagedError`, OSError other
    than for a full disk. Chunks that were not finished are given back.
    """
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connections) as http:
        log.info("%s: %s drains", work.job_id, owner)
        one = Drain(site, work, owner, heart, watch, http, only)
        await one.run()
    log.info("%s: %s is done with it (%s)", work.job_id, owner, one.stopped or "no chunk left")
    if one.error is not None:
        raise one.error
    return one.stopped


class Drain:
    """One worker's drain of one job. Everything in it runs on one event loop; SQL and files in
    threads."""

    def __init__(
        self,
        site: Site,
        work: Work,
        owner: str,
        heart: Heart,
        watch: Watch,
        http: aiohttp.ClientSession,
        only: int | None,
    ) -> None:
        self.stopped: Stop | None = None
        self.error: BaseException | None = None
        self._site, self._work, self._owner = site, work, owner
        self._heart, self._only = heart, only
        self._faculty = Faculty(http, site, work, self._fail)
        self._window = Window(work.spec.max_in_flight)
        self._warmup = Warmup()
        self._open: list[OpenChunk] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._troubles = Troubles(work, self._faculty.trouble, site.settings.teacher_patience_s)
        self._lookout = Lookout(
            site,
            work,
            owner,
            watch,
            self._faculty,
            self._window,
            self._troubles,
            self._open,
            self._stop,
        )

    async def run(self) -> None:
        """Returns when nothing is left under way; see `stopped` and `error`."""
        looking = asyncio.create_task(self._lookout.keep_looking())
        loops = [looking, asyncio.create_task(self._drop_lost())]
        try:
            await self._meet()
            await self._feed_all()
            await self._settle()
        finally:
            self._faculty.shut()
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._window.close()
            await asyncio.to_thread(self._faculty.close)
            await self._give_back()

    async def _meet(self) -> None:
        if self._work.cancelled:
            return  # Nothing is asked any more: its rows end whoever answers there.
        try:
            await self._faculty.start()
        except TeacherError as error:
            self._fail(error)

    async def _feed_all(self) -> None:
        while not self._hard_stop():
            self._changed.clear()
            if self._has_room() and await self._fed_next():
                continue
            if not self._open:
                return
            await self._changed.wait()

    def _has_room(self) -> bool:
        """Whether one more chunk is needed to keep the window full. Those that are being written
        keep no request waiting, so they count apart."""
        most = math.ceil(self._work.spec.max_in_flight / self._work.spec.chunk_rows) + 1
        asking = sum(not chunk.complete for chunk in self._open)
        return asking < most and len(self._open) < 2 * most

    async def _fed_next(self) -> bool:
        try:
            return await self._feed_next()
        except TeacherError as error:  # An embedder is away: answers under way are still taken in.
            self._fail(error)
            return True

    async def _feed_next(self) -> bool:
        """Claim one chunk and start its rows; False if there is none to claim."""
        writing = self._site.sessions.writing
        lease = await asyncio.to_thread(
            in_session,
            writing,
            claim_chunk,
            self._work.job_id,
            self._owner,
            self._only,
            self._heart.lease_s,
            round_rows(self._work.spec),
        )
        if lease is None:
            return False
        chunk = await self._opened(self._heart.keep(lease))
        if chunk is None:
            return True
        self._open.append(chunk)
        self._lookout.soon()
        await asyncio.to_thread(self._work.plan.prepare, chunk.seeds)
        for place in self._work.plan.places(chunk.seeds):
            if self._hard_stop() or lease.lost.is_set():
                return True
            await self._feed_row(chunk, place, chunk.seeds[place])
        return True

    async def _opened(self, lease: Lease) -> OpenChunk | None:
        """None if it was lost meanwhile: who took it over may have tidied its files away."""
        note, reading = self._troubles.note_wait, self._site.sessions.reading
        try:
            return await until_written(
                lease, note, lambda: open_chunk(reading, self._work, lease, note)
            )
        except LeaseLostError:
            self._heart.drop(lease)
            return None

    async def _feed_row(self, chunk: OpenChunk, place: int, seed: Seed) -> None:
        step = await self._next_step(chunk, seed)
        if isinstance(step, tuple) and self._asks(chunk, place):
            await self._window.room()
        elif place % 16 == 0:
            await asyncio.sleep(0)  # Rows that need no request must not starve those that do.
        if not isinstance(step, tuple):
            self._end(chunk, place, step)
        elif self._not_needed(chunk, place) is not None:
            self._end_unasked(chunk, place, seed)
        elif self.stopped is None:
            task = self._window.start(self._row(chunk, place, seed, step))
            chunk.waiting[task] = place
            task.add_done_callback(lambda done: self._row_done(chunk, done))

    async def _row(
        self, chunk: OpenChunk, place: int, seed: Seed, requests: tuple[Request, ...]
    ) -> None:
        step: Step = requests
        while isinstance(step, tuple):
            if not await self._ask_all(chunk, place, step):
                if self._not_needed(chunk, place) is not None:
                    self._end_unasked(chunk, place, seed)
                return
            step = await self._next_step(chunk, seed)
        self._end(chunk, place, step)

    async def _ask_all(self, chunk: OpenChunk, place: int, requests: tuple[Request, ...]) -> bool:
        """Ask side by side; False if a stop left one unanswered. Those that are answered are kept
        even if another raises."""
        if len(requests) == 1:
            return await self._ask(chunk, place, requests[0])  # Most rows: no task of its own.
        asked = [self._ask(chunk, place, request) for request in requests]
        answered = await asyncio.gather(*asked, return_exceptions=True)
        for outcome in answered:
            if isinstance(outcome, BaseException):
                raise outcome
        return all(answered)

    async def _ask(self, chunk: OpenChunk, place: int, request: Request) -> bool:
        async with self._warmup.gate(request), self._window.slot() as slot:
            if not await self._may_spend(chunk, place):
                return False
            try:
                entry = await self._faculty.ask(request, lambda: wait_until_held(chunk.lease))
                if entry is None:
                    return False
                slot.answered()
                await chunk.append(entry)
            finally:
                self._lookout.purse.put_back()
        self._lookout.note(chunk, entry)
        return True

    async def _may_spend(self, chunk: OpenChunk, place: int) -> bool:
        """Wait for a part of the budget; False if the row is not to be asked any more."""
        while self._asks(chunk, place):
            if self._lookout.purse.take():
                return True
            await self._lookout.next_look()
        return False

    def _asks(self, chunk: OpenChunk, place: int) -> bool:
        return self.stopped is None and self._not_needed(chunk, place) is None

    def _not_needed(self, chunk: OpenChunk, place: int) -> NotNeeded | None:
        """Why the row at `place` need not be asked; None if it is."""
        if self.stopped == "cancelled":
            return "cancelled"
        if self.stopped == "budget":
            return "budget"
        return None if chunk.wanted(place, self._lookout.goal) else "target"

    async def _next_step(self, chunk: OpenChunk, seed: Seed) -> Step:
        calls, plan = chunk.calls(seed), self._work.plan
        step = (
            (await asyncio.to_thread(plan.next, seed, calls))
            if plan.slow
            else plan.next(seed, calls)
        )
        return step if isinstance(step, tuple) else self._work.attributed(step, calls)

    def _end_unasked(self, chunk: OpenChunk, place: int, seed: Seed) -> None:
        why = self._not_needed(chunk, place)
        assert why is not None
        calls = chunk.calls(seed)
        ended = self._work.plan.not_needed(seed, why, calls)
        self._end(chunk, place, self._work.attributed(ended, calls))

    def _end(self, chunk: OpenChunk, place: int, outcome: Record | Rejected) -> None:
        before = chunk.counts["accepted"]
        chunk.end(place, outcome)
        for other in self._open:
            if (other.lease.number or 0) > (chunk.lease.number or 0):
                other.accepted_before += chunk.counts["accepted"] - before
        if chunk.complete:
            task = asyncio.create_task(self._close(chunk))
            self._closing.add(task)
            task.add_done_callback(self._closed)
            self._changed.set()

    def _row_done(self, chunk: OpenChunk, task: asyncio.Task[None]) -> None:
        chunk.waiting.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, LeaseLostError):
            self._fail(error)

    async def _close(self, chunk: OpenChunk) -> None:
        sessions = self._site.sessions.writing
        try:
            await until_written(
                chunk.lease,
                self._troubles.note_wait,
                lambda: close_chunk(sessions, self._work, chunk),
            )
        except LeaseLostError:
            return  # `_drop_lost` sees to it.
        self._forget(chunk)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _forget(self, chunk: OpenChunk) -> None:
        for task in list(chunk.waiting):
            task.cancel()
        self._heart.drop(chunk.lease)
        if chunk in self._open:
            self._open.remove(chunk)
        self._changed.set()

    async def _drop_lost(self) -> None:
        """Cancel at once what is in flight for a chunk that somebody else has taken over."""
        while True:
            for chunk in [chunk for chunk in self._open if chunk.lease.lost.is_set()]:
                log.warning("%s: chunk %s was taken over", self._work.job_id, chunk.lease.number)
                self._forget(chunk)
            await asyncio.sleep(LOST_LOOK_S)

    async def _give_back(self) -> None:
        for chunk in list(self._open):
            self._forget(chunk)
            await asyncio.to_thread(in_session, self._site.sessions.writing, release, chunk.lease)
        await asyncio.to_thread(
            in_session, self._site.sessions.writing, give_share_back, self._owner
        )

    def _stop(self, reason: Stop) -> None:
        if self.stopped is None or reason in ("gone", "failed"):
            self.stopped = reason
            self._faculty.shut()
            self._changed.set()

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        pauses = isinstance(error, TeacherError) and error.pauses
        self._stop("paused" if pauses else "failed")

    def _hard_stop(self) -> bool:
        return self.stopped is not None and self.stopped not in SOFT

    async def _settle(self) -> None:
        """Let what is under way end by itself, as long as that is worth waiting for."""
        until = time.monotonic() + GRACE_S[self.stopped]
        while (self._window or self._closing) and time.monotonic() < until:
            await asyncio.sleep(0.05)
