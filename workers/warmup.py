"""One request warms a shared prefix before the others that begin with it are sent.

Sent all at once, requests with the same beginning each make the server compute it: its prefix cache
holds a beginning only once one of them is through.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prompts.plan import Request


class Warmup:
    """Which prefixes this worker has warmed, of which teacher."""

    def __init__(self) -> None:
        self._warm: dict[tuple[str, str], asyncio.Event] = {}

    @asynccontextmanager
    async def gate(self, request: Request) -> AsyncIterator[None]:
        """Enter before asking: the first of a prefix at once, the others when it is answered, or
        has failed: then they fail or are asked by themselves."""
        if request.prefix is None:
            yield
            return
        key = (request.teacher, request.prefix)
        if key in self._warm:
            await self._warm[key].wait()
            yield
            return
        warm = self._warm[key] = asyncio.Event()
        try:
            yield
        finally:
            warm.set()
