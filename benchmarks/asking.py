"""A bare aiohttp loop: what no engine that keeps anything can be faster than."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import aiohttp

WINDOW = 64


@dataclass
class Heard:
    """What came back. `digest` doesn't depend on the order."""

    answers: int = 0
    completion_tokens: int = 0
    digest: int = 0
    characters: int = 0
    lengths: list[int] = field(default_factory=list)

    def take(self, text: str, tokens: int) -> None:
        """One answer."""
        self.answers += 1
        self.completion_tokens += tokens
        self.digest = (self.digest + crc32(text.encode())) % 2**64
        self.characters += len(text)
        self.lengths.append(tokens)


def ask_all(url: str, model: str, prompts: Iterable[str], sampling: dict[str, Any]) -> Heard:
    """Chat completions of all prompts, `WINDOW` under way at any time."""
    return asyncio.run(_ask_all(url, model, iter(prompts), sampling))


async def _ask_all(url: str, model: str, prompts: Iterator[str], sampling: dict[str, Any]) -> Heard:
    heard = Heard()
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:

        async def one_after_the_other() -> None:
            for prompt in prompts:
                body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
                found = await _asked(http, f"{url}/chat/completions", body | sampling)
                text = found["choices"][0]["message"]["content"]
                heard.take(text, found["usage"]["completion_tokens"])

        await asyncio.gather(*(one_after_the_other() for _ in range(WINDOW)))
    return heard


async def _asked(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    """An answer, asked for once more where a server that had no time to look at its connections
    took one for idle and closed it: what any client does."""
    try:
        async with http.post(url, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()
    except aiohttp.ServerDisconnectedError:
        async with http.post(url, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()
