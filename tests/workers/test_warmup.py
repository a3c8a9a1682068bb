import asyncio

import pytest

from prompts.plan import Request
from prompts.spec import Sampling
from workers.warmup import Warmup


def request(row: str, prefix: str | None, teacher: str = "t") -> Request:
    return Request(row, 0, 0, (), Sampling(), teacher, prefix=prefix)


async def test_one_goes_first_and_the_rest_of_its_prefix_together_when_it_is_back() -> None:
    warmup, asked = Warmup(), []
    back = asyncio.Event()

    async def ask(one: Request) -> None:
        async with warmup.gate(one):
            asked.append(one.row)
            await back.wait()

    rows = [request("a1", "a"), request("a2", "a"), request("a3", "a"), request("b1", "b")]
    others = [request("n", None), request("a4", "a", teacher="other")]
    tasks = [asyncio.create_task(ask(one)) for one in rows + others]
    await asyncio.sleep(0.01)
    assert asked == ["a1", "b1", "n", "a4"]
    back.set()
    await asyncio.gather(*tasks)
    assert asked == ["a1", "b1", "n", "a4", "a2", "a3"]


async def test_the_first_one_failing_holds_nobody_up() -> None:
    warmup = Warmup()

    async def fail() -> None:
        async with warmup.gate(request("a1", "a")):
            await asyncio.sleep(0)
            raise OSError("gone")

    first = asyncio.create_task(fail())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), warmup.gate(request("a2", "a")):
        assert first.done()
    with pytest.raises(OSError, match="gone"):
        await first
