"""Whether a teacher is still the one that a job began with: model, context, tokenizer, template."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import aiohttp

from prompts.record import Frozen
from service.asking import Endpoint, NoAnswerError, require_entry, unknown_model
from service.teachers import tokenizer_digest, weights_digest

ASK_S = 15.0
PROBE_S = 120.0
"""A server that has just started may compile on its first request."""
NO_SUCH_ROUTE = frozenset({400, 404, 405, 422, 501})
CONVERSATION = (
    {"role": "system", "content": "Añ0 \u2014 <|x|>\n\t1234567"},
    {"role": "user", "content": "  The 2nd question: naïve 数字 🜍?"},
)
"""Turns whose token ids tell tokenizers and chat templates apart."""


class Identity(Frozen):
    """What can be known of a teacher without believing its name. None: it doesn't say."""

    served_model: str
    root: str | None = None
    """What the server calls the weights that it loaded."""
    context_tokens: int | None = None
    tokens_sha256: str | None = None
    """Of the token ids that its tokenizer and chat template make of a fixed conversation."""
    weights: str | None = None
    """A digest of the weights, where their directory is at hand."""
    tokenizer_sha256: str | None = None
    """Of tokenizer.json, where it is at hand."""

    def changes(self, later: "Identity") -> tuple[str, ...]:
        """In words what is different of `later`; what either of the two doesn't say counts not."""
        pairs = [
            (name, self.__dict__[name], later.__dict__[name]) for name in type(self).model_fields
        ]
        return tuple(
            f"{name} was {before}, is {after}"
            for name, before, after in pairs
            if None not in (before, after) and before != after
        )


async def identify(
    http: aiohttp.ClientSession, endpoint: Endpoint, directory: Path | None
) -> Identity:
    """Ask the server who it is; costs no token. Raises `NoAnswerError`, and `TeacherError` if it
    refuses the key or doesn't serve the model."""
    entry = await _entry(http, endpoint)
    known = await asyncio.to_thread(read_identity, endpoint.model, directory)
    told = {
        "root": entry.get("root"),
        "context_tokens": entry.get("max_model_len"),
        "tokens_sha256": await _tokens(http, endpoint),
    }
    return known.model_copy(update=told)


def read_identity(served_model: str, directory: Path | None) -> Identity:
    """What a teacher's directory alone says, if it is at hand. Blocks."""
    if directory is None or not directory.is_dir():
        return Identity(served_model=served_model)
    return Identity(
        served_model=served_model,
        weights=weights_digest(directory),
        tokenizer_sha256=tokenizer_digest(directory),
    )


async def answers(
    http: aiohttp.ClientSession, endpoint: Endpoint, timeout_s: float = PROBE_S
) -> None:
    """Ask for one token: health routes stay green on hung engines. Raises `NoAnswerError`."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "temperature": 0,
    }
    await _probe(http, endpoint, "chat/completions", body, timeout_s)


async def embeds(
    http: aiohttp.ClientSession, endpoint: Endpoint, timeout_s: float = PROBE_S
) -> None:
    """Ask for the vector of a word. Raises `NoAnswerError`."""
    body = {"model": endpoint.model, "input": ["Hi"]}
    await _probe(http, endpoint, "embeddings", body, timeout_s)


async def _probe(
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    place: str,
    body: dict[str, Any],
    timeout_s: float,
) -> None:
    status, said = await _ask(http, endpoint, f"{endpoint.base_url}/{place}", body, timeout_s)
    if status >= 500 or status in (408, 429):
        raise NoAnswerError(f"HTTP {status}: {said!s:.300}")


async def _entry(http: aiohttp.ClientSession, endpoint: Endpoint) -> dict[str, Any]:
    status, said = await _ask(http, endpoint, f"{endpoint.base_url}/models", None)
    if status in NO_SUCH_ROUTE:
        return {}
    if status != 200 or not isinstance(said, dict) or not isinstance(said.get("data"), list):
        require_entry(endpoint, status, str(said))
        raise NoAnswerError(f"HTTP {status}: {said!s:.300}")
    by_name = {entry.get("id"): entry for entry in said["data"] if isinstance(entry, dict)}
    if endpoint.model not in by_name:
        served = ", ".join(sorted(map(str, by_name)))
        raise unknown_model(endpoint, f"it serves {served or 'none'}")
    found: dict[str, Any] = by_name[endpoint.model]
    return found


async def _tokens(http: aiohttp.ClientSession, endpoint: Endpoint) -> str | None:
    """vLLM's /tokenize, beside /v1; None where there is no such route."""
    body = {"model": endpoint.model, "messages": list(CONVERSATION)}
    status, said = await _ask(
        http, endpoint, endpoint.base_url.removesuffix("/v1") + "/tokenize", body
    )
    if status != 200 or not isinstance(said, dict) or not isinstance(said.get("tokens"), list):
        return None
    return hashlib.sha256(json.dumps(said["tokens"]).encode()).hexdigest()


async def _ask(
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    url: str,
    body: dict[str, Any] | None,
    timeout_s: float = ASK_S,
) -> tuple[int, Any]:
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=5)
    try:
        async with http.request(
            "GET" if body is None else "POST",
            url,
            json=body,
            headers=endpoint.headers,
            timeout=timeout,
        ) as response:
            text = await response.text(errors="replace")
    except TimeoutError as error:
        raise NoAnswerError(f"no answer from {url} in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text
