"""Counting the tokens of a chat that streams: the teacher is asked to tell them at the end."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from service.openai.objects import Object
from service.quotas import tokens_of

END = b"\n\n"


@dataclass
class Meter:
    """What one stream took."""

    told: int | None = None
    """As the teacher counted it."""
    pieces: int = 0

    @property
    def tokens(self) -> int:
        """As the teacher counted; of a stream that broke off before that, its pieces: servers send
        one a token."""
        return self.pieces if self.told is None else self.told


def asking_for_usage(body: Object) -> Object:
    """The body, with the wish to be told the tokens."""
    options = body.get("stream_options")
    given: dict[str, Any] = options if isinstance(options, dict) else {}
    return body | {"stream_options": given | {"include_usage": True}}


def asks_for_usage(body: Object) -> bool:
    """Whether the client wants to be told itself."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


async def metered(blocks: AsyncIterator[bytes], meter: Meter, shown: bool) -> AsyncIterator[bytes]:
    """The stream, read along. The piece that tells the tokens is left out unless it is to be
    `shown`: whoever didn't ask for it doesn't expect a piece without a choice."""
    rest = b""
    async for block in blocks:
        *events, rest = (rest + block).split(END)
        for event in events:
            if not _read(event, meter) or shown:
                yield event + END
    if rest:
        yield rest


def _read(event: bytes, meter: Meter) -> bool:
    """Count an event; whether it does nothing but tell the tokens."""
    try:
        said = json.loads(event.removeprefix(b"data:"))
    except ValueError:
        return False
    if not isinstance(said, dict):
        return False
    choices = said.get("choices")
    meter.pieces += len(choices) if isinstance(choices, list) else 0
    if isinstance(said.get("usage"), dict):
        meter.told = tokens_of(said)
    return meter.told is not None and choices == []
