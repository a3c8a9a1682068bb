"""Rows a second of a bulk upload, against one-row uploads and against decoding alone."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from pydantic_core import from_json

from benchmarks.result import Result
from benchmarks.server import Server, running
from service.addresses import API

LEAST_OF_BARE = 0.5
LEAST_OF_SINGLE = 30.0
TARGET = f">= {LEAST_OF_BARE} x bare decoding, >= {LEAST_OF_SINGLE:.0f} x one-row uploads"
SINGLE_ROWS = 30
BLOCK_ROWS = 10_000


def run(quick: bool) -> Result:
    """Ratio to bare decoding (pydantic_core's parser, line by line) at the largest upload; growth
    over sizes, with the server's memory."""
    sizes = (20_000, 60_000) if quick else (100_000, 1_000_000, 5_000_000)
    with tempfile.TemporaryDirectory() as folder, running("service.app:app", Path(folder)) as at:
        growth = [measure(at, rows, 2 if quick else 5) for rows in sizes]
    last = growth[-1]
    met = last["ratio"] >= LEAST_OF_BARE and last["ours"] >= LEAST_OF_SINGLE * last["single"]
    return Result(
        name="ingest",
        ours=last["ours"],
        unit="rows/s",
        ratio=last["ratio"],
        target=TARGET,
        met=met,
        peer=last["single"],
        limit=last["bare"],
        growth=growth,
    )


def measure(server: Server, rows: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds; both sides must have counted the same rows."""
    found: dict[str, list[float]] = {"ours": [], "single": [], "bare": []}
    for _ in range(rounds):
        found["ours"].append(rows / _timed(lambda: _bulk(server, rows)))
        found["single"].append(SINGLE_ROWS / _timed(lambda: _one_by_one(server)))
        found["bare"].append(rows / _timed(lambda: _decode(rows)))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = [a / b for a, b in zip(found["ours"], found["bare"], strict=True)]
    rss = server.rss_bytes / 2**20
    return {"rows": rows, **medians, "ratio": statistics.median(ratios), "rss_mib": rss}


def _bulk(server: Server, rows: int) -> None:
    answer = _upload(server, blocks(rows))
    if answer["summary"]["rows"] != rows:
        raise AssertionError("the API counted other rows")


def _one_by_one(server: Server) -> None:
    for number in range(SINGLE_ROWS):
        _upload(server, iter([_line(number)]))


def _upload(server: Server, content: Iterator[bytes]) -> dict[str, dict[str, int]]:
    answer = httpx.post(
        f"{server.url}{API}/files", params={"name": "rows.jsonl"}, content=content, timeout=600
    )
    found: dict[str, dict[str, int]] = answer.raise_for_status().json()
    return found


def _decode(rows: int) -> None:
    decoded = sum(
        isinstance(from_json(line), dict) for block in blocks(rows) for line in block.splitlines()
    )
    if decoded != rows:
        raise AssertionError("decoding counted other rows")


def blocks(rows: int) -> Iterator[bytes]:
    """A seeds file, some thousand rows at a time."""
    for start in range(0, rows, BLOCK_ROWS):
        yield b"".join(_line(number) for number in range(start, min(rows, start + BLOCK_ROWS)))


def _line(number: int) -> bytes:
    question = f"Ann has {number} apples and buys {number % 97}. How many does she have?"
    row = {"id": str(number), "question": question, "answer": str(number + number % 97)}
    return json.dumps(row).encode() + b"\n"


def _timed(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
