"""Latency of reads and submits at 100 requests a second, and submits a second, on SQLite.

With BENCHMARK_DATABASE_URL set to an empty PostgreSQL database, which is filled, on that as well.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from benchmarks.result import Result
from benchmarks.server import Server, running
from service import db
from service.addresses import ALIVE, API
from service.db import make_engine, sessions
from service.ids import make_id
from service.tables import Chunk, Job, State, now

LONGEST_S = 0.1
LEAST_SUBMITS, LEAST_ON_POSTGRESQL = 50.0, 300.0
TARGET = (
    f"p99 <= {LONGEST_S * 1000:.0f} ms at 100 requests/s, >= {LEAST_SUBMITS:.0f} submits/s on"
    f" SQLite, {LEAST_ON_POSTGRESQL:.0f} on PostgreSQL"
)
RATE = 100
SUBMIT_EVERY = 10
CHUNK_ROWS = 256
SETTLE_S = 2.0
JOB = {"kind": "serve", "model": "org/model"}
Ask = Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]


def run(quick: bool) -> Result:
    """p99 with the most finished jobs; the bare route's p99 stands beside as the limit. Growth over
    finished jobs: it should be flat."""
    sizes = (100, 1_000) if quick else (100, 1_000, 10_000)
    seconds = 3.0 if quick else 20.0
    growth = [measure(jobs, seconds) for jobs in sizes]
    last = growth[-1]
    met = last["p99_s"] <= LONGEST_S and last["submits_per_s"] >= LEAST_SUBMITS
    if (postgres := os.environ.get("BENCHMARK_DATABASE_URL")) is not None:
        growth.append(measure(1_000, seconds, postgres) | {"postgresql": 1.0})
        met &= growth[-1]["submits_per_s"] >= LEAST_ON_POSTGRESQL
    return Result(
        name="service",
        ours=last["p99_s"],
        unit="s",
        ratio=last["p99_s"] / last["bare_p99_s"],
        target=TARGET,
        met=met,
        limit=last["bare_p99_s"],
        growth=growth,
    )


def measure(jobs: int, seconds: float, database_url: str | None = None) -> dict[str, float]:
    """Both servers, one after the other, under the same load. SQLite without `database_url`."""
    with tempfile.TemporaryDirectory() as folder:
        database_url = database_url or f"sqlite:///{folder}/retort.db"
        fill(database_url, jobs)
        with running("service.app:app", Path(folder), database_url) as ours:
            late = asyncio.run(_load(ours, _read_or_submit, seconds))
            submits = asyncio.run(_submits(ours, seconds))
        with running("benchmarks.bare:app", Path(folder)) as bare:
            limit = asyncio.run(_load(bare, _bare, seconds))
    each = list(late.values())
    return {
        "finished_jobs": jobs,
        "p50_s": statistics.median(each),
        "p99_s": _p99(each),
        "reads_p99_s": _p99([late[number] for number in late if number % SUBMIT_EVERY]),
        "submits_p99_s": _p99([late[number] for number in late if not number % SUBMIT_EVERY]),
        "bare_p99_s": _p99(list(limit.values())),
        "submits_per_s": submits,
    }


def fill(database_url: str, jobs: int) -> None:
    """Finished jobs with about 1,000 rows in chunks each: 1,000 of them are a million rows."""
    engine = make_engine(database_url)
    db.upgrade(engine)
    with sessions(engine).writing.begin() as session:
        for _ in range(jobs):
            job = Job(
                id=make_id("job"),
                kind="build",
                name="old",
                spec={"kind": "build"},
                state=State.SUCCEEDED,
                finished_at=now(),
            )
            session.add(job)
            session.flush()
            session.add_all(
                Chunk(job_id=job.id, number=n, first_row=n * CHUNK_ROWS, rows=CHUNK_ROWS, offset=0)
                for n in range(4)
            )
    engine.dispose()


async def _load(server: Server, ask: Ask, seconds: float) -> dict[int, float]:
    """Latencies at a steady rate by the request's number, counted from when each was due: an answer
    that is late makes the next ones late too."""
    late: dict[int, float] = {}
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        await ask(client, 0)
        # Making thousands of tasks takes half a second, which no answer is to be charged with.
        begun = time.perf_counter() + SETTLE_S

        async def one(number: int) -> None:
            due = begun + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            (await ask(client, number)).raise_for_status()
            late[number] = time.perf_counter() - due

        await asyncio.gather(*(one(number) for number in range(int(seconds * RATE))))
    return late


async def _read_or_submit(client: httpx.AsyncClient, number: int) -> httpx.Response:
    if number % SUBMIT_EVERY == 0:
        return await client.post(f"{API}/jobs", json=JOB | {"name": f"t{number}"})
    if number % 3 == 0:
        return await client.get(f"{API}/jobs", params={"state": "succeeded", "limit": 50})
    return await client.get(f"{API}/files")


async def _bare(client: httpx.AsyncClient, number: int) -> httpx.Response:
    return await client.get(ALIVE)


async def _submits(server: Server, seconds: float) -> float:
    """Submits a second from eight clients that wait for nothing but their answers."""
    done = 0
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        until = time.perf_counter() + seconds

        async def submit(who: int) -> None:
            nonlocal done
            while time.perf_counter() < until:
                answer = await client.post(f"{API}/jobs", json=JOB | {"name": f"s{who}"})
                answer.raise_for_status()
                done += 1

        await asyncio.gather(*(submit(who) for who in range(8)))
    return done / seconds


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
