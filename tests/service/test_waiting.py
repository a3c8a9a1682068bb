import asyncio

from service.waiting import wait_at_most


async def test_it_tells_whether_the_event_came() -> None:
    event = asyncio.Event()
    assert not await wait_at_most(event, 0.01)
    event.set()
    assert await wait_at_most(event, 60)


async def test_a_cancel_in_the_moment_of_the_event_is_heard() -> None:
    event = asyncio.Event()

    async def look_for_ever() -> None:
        while True:
            event.clear()
            await wait_at_most(event, 60)

    task = asyncio.create_task(look_for_ever())
    for _ in range(5):
        await asyncio.sleep(0)
    event.set()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    heard = task.done()
    task.cancel()
    assert heard
    assert task.cancelled()
