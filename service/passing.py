"""Passing a chat completion on to a teacher as it stands: only the model's name is changed."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from service import spans
from service.asking import Endpoint
from service.spans import SpanKind


@dataclass(frozen=True)
class Answer:
    """What a teacher answered."""

    status: int
    body: Any
    """Parsed; the text if it isn't JSON."""
    retry_after: str | None = None


def outgoing(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """The body that the teacher gets."""
    return body | {"model": endpoint.model}


async def complete(http: aiohttp.ClientSession, endpoint: Endpoint, body: dict[str, Any]) -> Answer:
    """One attempt, whatever its status. Raises aiohttp.ClientError, OSError or TimeoutError."""
    with spans.span("POST chat/completions", SpanKind.CLIENT, teacher=endpoint.name) as span:
        async with http.post(
            f"{endpoint.base_url}/chat/completions",
            json=outgoing(endpoint, body),
            headers=endpoint.headers,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
        ) as response:
            text = await response.text(errors="replace")
            if span is not None:
                span.set_attribute("http.response.status_code", response.status)
        retry_after = response.headers.get("Retry-After")
    try:
        said = json.loads(text)
    except ValueError:
        return Answer(response.status, text, retry_after)
    return Answer(response.status, renamed(said, body.get("model")), retry_after)


def renamed(said: Any, model: Any) -> Any:
    """A completion under the name that was asked for, not the teacher's own."""
    return said | {"model": model} if isinstance(said, dict) and "model" in said else said
