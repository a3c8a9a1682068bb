"""The teachers of one batch: each has a pace of its own, below its registered limit, which batches
share with all others who ask it (service/shares.py)."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import aiohttp

from service.asking import BUSY
from service.batches import Ask
from service.pace import Pace
from service.passing import Answer, complete
from service.shares import give_share_back, take_share
from service.site import Site
from workers.answers import Line
from workers.batch_work import Work
from workers.lease import Lease
from workers.ledger import wait_until_held
from workers.sql import in_session

LONGEST_WAIT_S = 15.0
LONGEST_RETRY_AFTER_S = 300.0


class Teachers:
    """Whom a batch asks. Nothing is sent before the first `look`."""

    def __init__(self, site: Site, work: Work, lease: Lease) -> None:
        self._site, self._work, self._lease = site, work, lease
        self._paces = {name: Pace(0) for name in work.endpoints}
        self._silent_since: float | None = None
        self._shut = False

    async def look(self, done: Collection[str]) -> None:
        """See how much of each teacher this batch may use now; `done` are the custom_ids that need
        no asking."""
        for name, share in (await asyncio.to_thread(self._share, done)).items():
            self._paces[name].grant(share)

    async def answer(
        self, http: aiohttp.ClientSession, ask: Ask, body: dict[str, Any]
    ) -> Line | None:
        """A line of the output; None if `shut` came before an answer."""
        attempt, pace = 0, self._paces[ask.model]
        while await pace.enter():
            sent_at = time.monotonic()
            try:
                await wait_until_held(self._lease)
                line, retry_after_s = await self._attempt(http, ask, body)
            finally:
                pace.leave()
            if line is not None:
                pace.answered()
                return line
            pace.refused(sent_at, retry_after_s)
            await self._wait(attempt)
            attempt += 1
        return None

    def shut(self) -> None:
        """Ask no more."""
        self._shut = True
        for pace in self._paces.values():
            pace.shut()

    async def give_back(self) -> None:
        """Leave the teachers to others."""
        writing = self._site.sessions.writing
        await asyncio.to_thread(in_session, writing, give_share_back, self._lease.owner)

    async def _attempt(
        self, http: aiohttp.ClientSession, ask: Ask, body: dict[str, Any]
    ) -> tuple[Line | None, float | None]:
        """A line, or None and how long the teacher wants to be left alone."""
        try:
            answer = await complete(http, self._work.endpoints[ask.model], body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if not self._given_up():
                return None, None
            words = f"the teacher did not answer: {type(error).__name__}: {error}"
            fault = {"code": "teacher_unreachable", "message": words}
            return line_of(self._lease, ask, None, fault), None
        if _is_busy(answer) and not (answer.status >= 500 and self._given_up()):
            return None, _seconds(answer.retry_after)
        self._silent_since = None if answer.status < 500 else self._silent_since
        return line_of(self._lease, ask, answer, None), None

    def _given_up(self) -> bool:
        at = time.monotonic()
        self._silent_since = self._silent_since or at
        return at - self._silent_since >= self._site.settings.teacher_patience_s

    async def _wait(self, attempt: int) -> None:
        wait_s = min(LONGEST_WAIT_S, 0.25 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1)
        until = time.monotonic() + wait_s
        while not self._shut and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.2))

    def _share(self, done: Collection[str]) -> dict[str, int]:
        left = Counter(ask.model for ask in self._work.asks if ask.custom_id not in done)
        most, lease = self._work.spec.max_in_flight, self._lease
        with self._site.sessions.writing.begin() as session:
            return {
                name: take_share(
                    session, name, lease.owner, lease.job_id, min(most, left[name]), pace.in_flight
                )
                # In one order for all: each teacher's row is locked until the commit.
                for name, pace in sorted(self._paces.items())
            }


def line_of(lease: Lease, ask: Ask, answer: Answer | None, error: dict[str, str] | None) -> Line:
    """A line of the output or error file."""
    number = f"{lease.job_id.removeprefix('job-')}_{ask.line}"
    response = answer and {
        "status_code": answer.status,
        "request_id": f"req_{number}",
        "body": answer.body,
    }
    ids = {"id": f"batch_req_{number}", "custom_id": ask.custom_id}
    return ids | {"response": response, "error": error}


def _is_busy(answer: Answer) -> bool:
    return answer.status in BUSY or answer.status >= 500


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After in seconds; a date is not looked at."""
    if retry_after is None or not retry_after.isdigit():
        return None
    return min(float(retry_after), LONGEST_RETRY_AFTER_S)
