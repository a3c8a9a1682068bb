"""Asking a teacher over the OpenAI-compatible HTTP API, until it answers or there is no point."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from prompts.plan import REFUSED, Request
from prompts.record import Call

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 15.0
LONGEST_RETRY_AFTER_S = 300.0
BUSY = frozenset({408, 409, 425, 429})
"""Statuses of a teacher that is there, but not now: waited out for as long as it takes."""


class TeacherError(Exception):
    """The job can't go on: `reason` is one word, the message says what to do."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class BusyError(Exception):
    """The teacher is there and asked us to come back."""

    def __init__(self, retry_after_s: float | None):
        super().__init__()
        self.retry_after_s = retry_after_s


class NoAnswerError(Exception):
    """Nothing that counts as an answer: no connection, a timeout, a 5xx, a body that isn't one."""


@dataclass(frozen=True)
class Endpoint:
    """Where a teacher is asked."""

    name: str
    base_url: str
    """Ends in /v1."""
    model: str
    key: str | None = None
    timeout_s: float = 600.0
    """Of one request, its wait in the teacher's own queue included."""


@dataclass
class Trouble:
    """What keeps a teacher from answering, shared by all requests of one drain."""

    since: float | None = None
    detail: str = ""


@dataclass
class Asker:
    """Asks one teacher. State: the connection pool and how the teacher has been lately."""

    http: aiohttp.ClientSession
    endpoint: Endpoint
    patience_s: float
    stop: asyncio.Event
    """Set when nothing more is to be asked; waits between attempts end with it."""
    clock: Callable[[], float] = time.monotonic
    jitter: random.Random = field(default_factory=random.Random)
    trouble: Trouble = field(default_factory=Trouble)

    async def ask(
        self, request: Request, ready: Callable[[], Awaitable[None]]
    ) -> tuple[Call, float] | None:
        """The call and its seconds; None if `stop` was set before an attempt was answered.

        `ready` is awaited before each attempt and raises what forbids it. Raises `TeacherError`.
        """
        attempt = 0
        while not self.stop.is_set():
            await ready()
            started = self.clock()
            try:
                call = await post(self.http, self.endpoint, request)
            except BusyError as busy:
                self.trouble = Trouble()
                await self._wait(attempt, busy.retry_after_s)
            except NoAnswerError as error:
                self._note(str(error))
                await self._wait(attempt, None)
            else:
                self.trouble = Trouble()
                return call, self.clock() - started
            attempt += 1
        return None

    def _note(self, detail: str) -> None:
        since = self.clock() if self.trouble.since is None else self.trouble.since
        self.trouble = Trouble(since, detail)
        if self.clock() - since >= self.patience_s:
            raise TeacherError(
                "teacher_unreachable",
                f"teacher {self.endpoint.name} at {self.endpoint.base_url} did not answer for "
                f"{self.patience_s:.0f} s ({detail}). Start it and submit the same build again: "
                "what it answered before is kept and taken over (RETORT_TEACHER_PATIENCE_S says "
                "how long to wait).",
            )

    async def _wait(self, attempt: int, retry_after_s: float | None) -> None:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10))
        wait_s = longest * self.jitter.uniform(0.5, 1.0)
        if retry_after_s is not None:
            # Jitter on top, never below what it asked for: all the waiting would return as one.
            wait_s += min(retry_after_s, LONGEST_RETRY_AFTER_S)
        try:
            await asyncio.wait_for(self.stop.wait(), wait_s)
        except TimeoutError:
            return


async def post(http: aiohttp.ClientSession, endpoint: Endpoint, request: Request) -> Call:
    """One attempt. A refusal for good of this one request is a `Call` too, with `error`.

    Raises `BusyError`, `NoAnswerError`, or `TeacherError` if the refusal is for the whole job.
    """
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    try:
        async with http.post(
            f"{endpoint.base_url}/chat/completions",
            json=_body(endpoint, request),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
        ) as response:
            text = await response.text(errors="replace")
            if response.status != 200:
                return _refusal(endpoint, request, response, text)
            return _answer(request, json.loads(text))
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {endpoint.timeout_s:.0f} s") from error
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error


def _body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [message.model_dump() for message in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return body


def _answer(request: Request, body: Any) -> Call:
    choice = body["choices"][0]
    message, usage = choice["message"], body.get("usage") or {}
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        finish_reason=choice.get("finish_reason") or "stop",
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
    )


def _refusal(
    endpoint: Endpoint, request: Request, response: aiohttp.ClientResponse, text: str
) -> Call:
    status, headers = response.status, response.headers
    if status in BUSY or (status == 503 and "Retry-After" in headers):
        raise BusyError(_seconds(headers.get("Retry-After")))
    if status >= 500:
        raise NoAnswerError(f"HTTP {status}: {text[:300]}")
    if status in (401, 403):
        raise TeacherError(
            "teacher_refused_key",
            f"teacher {endpoint.name} refused the key (HTTP {status}: {text[:300]}). Set the "
            "environment variable that its registration names for the workers, and submit again.",
        )
    if status == 404:
        raise TeacherError(
            "teacher_unknown_model",
            f"{endpoint.base_url} knows no model {endpoint.model!r} (HTTP 404: {text[:300]}). "
            f"Register teacher {endpoint.name} again with a name from its /v1/models.",
        )
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text="",
        finish_reason=REFUSED,
        error=f"HTTP {status}: {text[:2000]}",
    )


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return None  # An HTTP date: clocks may differ, so the own backoff has to do.
