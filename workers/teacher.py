"""Asking a teacher until it answers or there is no point: pace, breaker, fall-back."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

from prompts.plan import REFUSED, Request
from prompts.record import Call
from service.asking import BusyError, Endpoint, NoAnswerError, TeacherError, post, refused
from service.identity import answers
from service.pace import Pace
from service.waiting import wait_at_most

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
LONGEST_RETRY_AFTER_S = 300.0
OPEN_AFTER = 5
"""So many requests in a row without an answer, and only a probe is sent from then on."""
POISON_AFTER = 6
"""A request that failed so often while others were answered is what is wrong, not the teacher."""

Ready = Callable[[], Awaitable[None]]
"""Awaited before each attempt; raises what forbids it."""
Meet = Callable[[], Awaitable[None]]
"""Looks whether it is the teacher that the job began with; raises `TeacherError` if not."""
Answer = Callable[[Request], Awaitable[Call]]
"""One attempt at a teacher; raises what `service.asking.post` raises."""
Gone = Callable[[TeacherError], None]
"""Told, once, that the job has to pause or fail for this teacher's sake."""


@dataclass
class Trouble:
    """What keeps a teacher from answering, shared by all requests of one drain."""

    since: float | None = None
    detail: str = ""
    in_a_row: int = 0
    probed: bool = False
    """The breaker is open: only the probe is sent."""


@dataclass
class Asker:
    """Asks one teacher. State: its pace, and how it has been lately."""

    http: aiohttp.ClientSession
    endpoint: Endpoint
    pace: Pace
    patience_s: float
    meet: Meet
    gone: Gone
    instead: "Asker | None" = None
    """Asked in its place while it is away, and for what it refuses."""
    answer: Answer | None = None
    """Who answers; None: the server behind the endpoint."""
    clock: Callable[[], float] = time.monotonic
    jitter: random.Random = field(default_factory=random.Random)
    trouble: Trouble = field(default_factory=Trouble)
    answered: int = 0
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _probing: asyncio.Task[None] | None = None

    async def ask(self, request: Request, ready: Ready) -> tuple[Call, float] | None:
        """The call and its seconds; None if it was shut before an attempt was answered.

        Raises `TeacherError` for a refusal that means the whole job, and what `ready` raises.
        """
        attempt = misses = 0
        while not self._stop.is_set():
            if self.trouble.probed and self.instead is not None:
                return await self.instead.ask(request, ready)
            if not await self.pace.enter():
                continue
            before = self.answered
            answer = await self._attempt(request, ready)
            if answer is None:
                misses += self.answered > before
                if misses >= POISON_AFTER:
                    words = f"{misses} times no answer while others got theirs"
                    answer = refused(request, f"{words}: {self.trouble.detail}"), 0.0
            if answer is not None:
                if answer[0].finish_reason == REFUSED and self.instead is not None:
                    return await self.instead.ask(request, ready)
                call, seconds = answer
                return call.model_copy(update={"teacher": self.endpoint.name}), seconds
            await self._wait(attempt)
            attempt += 1
        return None

    async def start(self) -> None:
        """Look who answers there, before anything is asked. One who doesn't is probed from then on.
        Raises `TeacherError`."""
        try:
            await self.meet()
        except NoAnswerError as error:
            self._note(str(error), at_once=True)

    def shut(self) -> None:
        """Nothing more is to be asked; waits between attempts end."""
        self._stop.set()
        self.pace.shut()
        if self._probing is not None:
            self._probing.cancel()

    async def _attempt(self, request: Request, ready: Ready) -> tuple[Call, float] | None:
        started = self.clock()
        try:
            await ready()
            started = self.clock()
            call = await self._post(request)
        except BusyError as busy:
            self._well()
            retry_after_s = busy.retry_after_s
            if retry_after_s is not None:
                # Jitter on top, never below what it asked for: all would return as one.
                retry_after_s = min(retry_after_s, LONGEST_RETRY_AFTER_S)
                retry_after_s += self.jitter.uniform(0, FIRST_WAIT_S)
            self.pace.refused(started, retry_after_s)
            return None
        except NoAnswerError as error:
            self.pace.refused(started, None)
            self._note(str(error))
            return None
        except TeacherError as error:
            raise swapped(self.endpoint, error) from error
        finally:
            self.pace.leave()
        self._well()
        self.answered += 1
        self.pace.answered()
        return call, self.clock() - started

    async def _post(self, request: Request) -> Call:
        if self.answer is not None:
            return await self.answer(request)
        return await post(self.http, self.endpoint, request)

    def _well(self) -> None:
        if not self.trouble.probed:  # Then the probe decides: late answers of before say nothing.
            self.trouble = Trouble()

    def _note(self, detail: str, at_once: bool = False) -> None:
        trouble = self.trouble
        since = self.clock() if trouble.since is None else trouble.since
        row = trouble.in_a_row + 1
        opens = (at_once or row >= OPEN_AFTER) and not trouble.probed
        self.trouble = Trouble(since, detail, row, trouble.probed or opens)
        if opens and not self._stop.is_set():
            self.pace.halt()
            if self.instead is not None:
                self.pace.release()
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            await self._wait(attempt)
            try:
                await answers(self.http, self.endpoint)
                await self.meet()
            except NoAnswerError as error:
                self.trouble.detail = str(error)
                self._lose_patience()
            except TeacherError as error:
                self.gone(error)
                return
            else:
                self.trouble = Trouble()
                self.pace.go_on()
                return
            attempt += 1

    def _lose_patience(self) -> None:
        assert self.trouble.since is not None
        if self.instead is None and self.clock() - self.trouble.since >= self.patience_s:
            self.gone(away(self.endpoint, self.trouble.detail))

    async def _wait(self, attempt: int) -> None:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10))
        await wait_at_most(self._stop, longest * self.jitter.uniform(0.5, 1.0))


def away(endpoint: Endpoint, detail: str) -> TeacherError:
    """The teacher doesn't answer any more: the job waits for it without a worker."""
    return TeacherError(
        "paused_teacher",
        f"teacher {endpoint.name} at {endpoint.base_url} does not answer ({detail}). Start it: the "
        "job goes on by itself when it answers. Nothing that was paid for is lost.",
    )


def swapped(endpoint: Endpoint, error: TeacherError) -> TeacherError:
    """What a model that isn't served any more means once a job has begun with it."""
    if error.reason != "teacher_unknown_model":
        return error
    return changed(endpoint, str(error))


def changed(endpoint: Endpoint, what: str) -> TeacherError:
    """It isn't the teacher that the job began with: its rows would not be of one kind."""
    return TeacherError(
        "paused_teacher_changed",
        f"teacher {endpoint.name} at {endpoint.base_url} is not the one that this job began with:"
        f" {what}. Serve that one again, or cancel the job; `retort resume` goes on with the new"
        " one.",
    )
