"""The pace of a teacher: AIMD, Retry-After, the breaker's halt; and a purse's arithmetic."""

import asyncio

from prompts.limits import Budget
from service.pace import Pace
from workers.purse import Purse


def test_a_refusal_halves_once_per_window_and_answers_win_it_back() -> None:
    pace = Pace(16)
    assert pace.limit == 16
    at = pace._clock()
    pace.refused(at, None)
    pace.refused(at, None)  # Sent before the cut: it says nothing new.
    assert pace.limit == 8
    pace.refused(pace._clock() + 1, None)
    assert pace.limit == 4
    for _ in range(4):
        pace.answered()
    assert pace.limit == 4
    for _ in range(2):
        pace.answered()
    assert pace.limit == 5
    for _ in range(400):
        pace.answered()
    assert pace.limit == 16
    pace.grant(3)
    assert pace.limit == 3


def test_nobody_enters_before_retry_after_is_over() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        pace = Pace(4, loop.time)
        pace.refused(loop.time(), 0.15)
        began = loop.time()
        assert await asyncio.gather(*(pace.enter() for _ in range(2))) == [True, True]
        return loop.time() - began

    assert asyncio.run(wait()) >= 0.15


def test_places_are_given_in_order_and_a_halt_gives_none() -> None:
    async def enter() -> list[int]:
        pace, came = Pace(1), []

        async def one(number: int) -> None:
            if await pace.enter():
                came.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(4)]
        await asyncio.sleep(0)
        pace.leave()
        await asyncio.sleep(0)
        pace.halt()
        pace.leave()
        await asyncio.sleep(0)
        assert came == [0, 1]
        pace.go_on()
        await asyncio.sleep(0)
        tasks[3].cancel()
        pace.shut()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.in_flight == 1
        return came

    assert asyncio.run(enter()) == [0, 1, 2]


def test_a_purse_gives_its_part_and_no_more() -> None:
    purse = Purse(Budget(requests=10), window=8)
    assert not purse.take()  # Nobody has looked yet.
    assert purse.fill({"requests": 3}, purse.mark(), drains=2, place=0)
    assert [purse.take() for _ in range(5)] == [True] * 4 + [False]
    purse.put_back()
    purse.pay({"requests": 1})
    # Paid since the mark: not yet in what SQL says.
    assert purse.fill({"requests": 3}, {}, drains=1, place=0)
    assert [purse.take() for _ in range(4)] == [True] * 3 + [False]
    assert not purse.fill({"requests": 9}, {}, drains=1, place=0)


def test_a_purse_counts_both_sorts_of_tokens_and_time() -> None:
    purse = Purse(Budget(tokens=100, wall_s=9), window=50)
    assert purse.fill({"tokens": 0, "wall_s": 8.9}, {}, 2, 1)
    assert purse.take()
    purse.pay({"prompt_tokens": 30, "completion_tokens": 20})
    assert not purse.take()
    assert not purse.fill({"tokens": 50, "wall_s": 9.1}, purse.mark(), 2, 1)
    assert Purse(None, 1).take()
