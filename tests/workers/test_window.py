"""The sliding window."""

import asyncio

from workers.window import Window, spare


def test_no_more_than_the_limit_run_and_one_that_ends_makes_room() -> None:
    running = most = done = 0

    async def work(moves: int) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        for _ in range(moves):
            await asyncio.sleep(0)
        running -= 1
        done += 1

    async def slide() -> None:
        window = Window(4)
        for number in range(40):
            await window.room()
            # One long task must not hold the others up: that would be a barrier.
            window.start(work(10_000 if number == 0 else 3))
            if number == 39:
                assert done >= 35
                assert running <= 4
        await window.close()

    asyncio.run(slide())
    assert most == 4


def test_a_smaller_limit_lets_the_surplus_end_first() -> None:
    async def shrink() -> None:
        window = Window(3)
        ends = [asyncio.Event() for _ in range(3)]
        for end in ends:
            await window.room()
            window.start(_wait(end))
        window.resize(1)
        for end in ends[:2]:
            end.set()
            await asyncio.sleep(0.01)
        assert len(window) == 1
        room = asyncio.create_task(window.room())
        await asyncio.sleep(0.01)
        assert not room.done()
        ends[2].set()
        await room

    asyncio.run(shrink())


async def _wait(end: asyncio.Event) -> None:
    await end.wait()


def test_a_quarter_as_many_answers_may_wait_for_the_disk() -> None:
    assert [spare(limit) for limit in (1, 7, 8, 64)] == [1, 1, 2, 16]


def test_a_slot_is_free_while_its_answer_is_kept_and_a_slow_disk_stops_the_asking() -> None:
    async def ask_against_a_disk_that_stands_still() -> None:
        window, disk, asked = Window(8), asyncio.Event(), 0

        async def row() -> None:
            nonlocal asked
            async with window.slot() as slot:
                asked += 1
                slot.answered()
                await disk.wait()

        async def feed() -> None:
            for _ in range(40):
                await window.room()
                window.start(row())

        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0.01)
        assert (asked, window.in_flight) == (8 + spare(8), 0)
        disk.set()
        await feeding
        await asyncio.sleep(0.01)
        assert (asked, len(window), window.in_flight) == (40, 0, 0)

    asyncio.run(ask_against_a_disk_that_stands_still())


def test_answers_that_are_kept_leave_the_teacher_no_more_than_the_limit() -> None:
    async def fill() -> None:
        window, disk, teacher = Window(8), asyncio.Event(), asyncio.Event()

        async def row(number: int) -> None:
            async with window.slot() as slot:
                if number >= 2:
                    await teacher.wait()
                slot.answered()
                await disk.wait()

        async def feed() -> None:
            for number in range(40):
                await window.room()
                window.start(row(number))

        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0.01)
        assert (window.in_flight, len(window)) == (8, 10)
        teacher.set()
        disk.set()
        await feeding
        await window.close()

    asyncio.run(fill())
