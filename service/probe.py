"""Asks a server what it is and can do. Health routes stay green on hung engines, so the question
that counts is a completion of one token."""

import re
import time
from typing import Any

import aiohttp

from prompts.record import Frozen
from service.problems import Problem

CONNECT_S = 5.0
LIST_S = 15.0
COMPLETION_S = 120.0
"""A server that has just started may compile on its first request."""
MOST_LOGPROBS = 1000
"""As many as a spec may ask for."""


class Probe(Frozen):
    """What a probe found."""

    ok: bool
    context_tokens: int | None = None
    """Prompt and completion together; None where the server doesn't say."""
    max_logprobs: int | None = None
    """The most log-probabilities per token that it gives; 0: none."""
    tokenizer_sha256: str | None = None
    revision: str | None = None
    """A digest of the weights where they are at hand, else what the server calls them."""
    latency_s: float | None = None
    """Of a completion of one token."""
    error: str | None = None


async def ask_teacher(base_url: str, model: str, key: str | None) -> Probe:
    """Probe the server at `base_url`. Raises problems: unreachable, key refused, unknown model,
    request refused."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=COMPLETION_S, connect=CONNECT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        server = _Server(http, base_url, model)
        entry = await server.entry()
        started = time.monotonic()
        await server.require_completion()
        latency_s = time.monotonic() - started
        return Probe(
            ok=True,
            context_tokens=entry.get("max_model_len"),
            max_logprobs=await server.max_logprobs(),
            revision=entry.get("root"),
            latency_s=round(latency_s, 4),
        )


class _Server:
    def __init__(self, http: aiohttp.ClientSession, base_url: str, model: str) -> None:
        self._http = http
        self._base_url = base_url
        self._model = model

    async def entry(self) -> dict[str, Any]:
        """What /v1/models says of the model; empty for a server without that route."""
        status, body = await self._ask("GET", "/models", None, LIST_S)
        if status == 404:
            return {}
        self._refuse(status, body)
        models = body.get("data") if isinstance(body, dict) else None
        if not isinstance(models, list):
            raise unreachable(
                self._base_url, f"it answers, but not as an OpenAI API: {body!s:.200}"
            )
        by_name = {entry.get("id"): entry for entry in models if isinstance(entry, dict)}
        if self._model not in by_name:
            raise self._unknown_model(", ".join(sorted(str(name) for name in by_name)))
        found: dict[str, Any] = by_name[self._model]
        return found

    async def require_completion(self) -> None:
        status, body = await self._complete({})
        self._refuse(status, body)

    async def max_logprobs(self) -> int:
        """The largest `top_logprobs` that is not refused: by what the refusal says, else by
        halving."""
        status, body = await self._logprobs(MOST_LOGPROBS)
        if status == 200:
            return MOST_LOGPROBS
        said = re.search(r"max(?:imum)? allowed[^\d]*(\d+)", str(body))
        if said is not None:
            return int(said.group(1))
        allowed, refused = -1, MOST_LOGPROBS
        while refused - allowed > 1:
            middle = (allowed + refused) // 2
            status, _ = await self._logprobs(middle)
            allowed, refused = (middle, refused) if status == 200 else (allowed, middle)
        return max(allowed, 0)

    async def _logprobs(self, count: int) -> tuple[int, Any]:
        return await self._complete({"logprobs": True, "top_logprobs": count})

    async def _complete(self, extra: dict[str, Any]) -> tuple[int, Any]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "temperature": 0,
            **extra,
        }
        return await self._ask("POST", "/chat/completions", body, COMPLETION_S)

    async def _ask(
        self, method: str, route: str, body: dict[str, Any] | None, timeout_s: float
    ) -> tuple[int, Any]:
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_S)
        try:
            async with self._http.request(
                method, self._base_url + route, json=body, timeout=timeout
            ) as response:
                try:
                    return response.status, await response.json(content_type=None)
                except ValueError:
                    return response.status, await response.text(errors="replace")
        except TimeoutError as error:
            raise unreachable(self._base_url, f"no answer within {timeout_s:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self._base_url, str(error) or type(error).__name__) from error

    def _refuse(self, status: int, body: Any) -> None:
        if status == 200:
            return
        if status in (401, 403):
            raise Problem(
                422,
                "teacher-refused-key",
                "The teacher refused the key",
                f"{self._base_url} answered {status}: {said(body)}. Put the right key into the "
                "environment variable that `api_key_env` names, for the API and the workers.",
            )
        if status == 404:
            raise self._unknown_model("")
        if status >= 500 or status == 429:
            raise unreachable(self._base_url, f"it answered {status}: {said(body)}")
        raise Problem(
            422,
            "teacher-refused-request",
            "The teacher refused a completion of one token",
            f"{self._base_url} answered {status}: {said(body)}. A model without a chat template "
            "can't be asked: give its server one.",
        )

    def _unknown_model(self, served: str) -> Problem:
        advice = f"It serves: {served}." if served else "Ask its /v1/models for the right name."
        return Problem(
            422,
            "teacher-unknown-model",
            "The teacher does not serve that model",
            f"{self._base_url} serves no model {self._model!r}. {advice}",
        )


def unreachable(base_url: str, why: str) -> Problem:
    """502: nobody there who answers like a teacher."""
    return Problem(
        502,
        "teacher-unreachable",
        "The teacher can't be reached",
        f"{base_url}: {why}. Start its server, or register its right address.",
    )


def said(body: Any) -> str:
    """What a server's error says, short."""
    if isinstance(body, dict):
        error = body.get("error", body)
        message = error.get("message") if isinstance(error, dict) else error
        return str(message or body)[:300]
    return str(body)[:300]
