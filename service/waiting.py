"""Waiting for an event, but not for ever."""

import asyncio


async def wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set, after so many seconds at most.

    A cancel is always heard. `asyncio.wait_for` of Python 3.11 loses one that comes as the event is
    set, and a loop that waits so goes on for ever.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
