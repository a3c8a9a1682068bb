"""Following a job: what is told, and in which order."""

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from rich.console import Console

from service.cli.client import Api, Event
from service.cli.follow import follow
from service.cli.options import Screen

pytestmark = pytest.mark.slow

FAMILY = {
    "id": "job-r",
    "kind": "recipe",
    "part": None,
    "state": "succeeded",
    "progress": {},
    "children": [
        {"id": "job-a", "kind": "build", "part": "build", "state": "succeeded", "progress": {}},
        {"id": "job-b", "kind": "train", "part": "train", "state": "succeeded", "progress": {}},
    ],
}
HAPPENED = {
    "job-r": [(1, "08:00:00", "running"), (6, "08:00:09", "succeeded")],
    "job-a": [(2, "08:00:01", "running"), (3, "08:00:03", "succeeded")],
    "job-b": [(4, "08:00:04", "running"), (5, "08:00:08", "succeeded")],
}


class FakeApi(Api):
    """A FAKE of the API: a recipe that has ended, each of whose parts has a stream of its own."""

    def get(self, path: str, **_: Any) -> Any:
        return FAMILY

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        for number, at, state in HAPPENED[job_id]:
            view = {"id": number, "job_id": job_id, "type": "state", "data": {"state": state}}
            yield Event(number, "state", view | {"at": f"2026-11-01T{at}Z"})


def test_what_is_replayed_is_told_in_its_order_and_with_its_time() -> None:
    written = io.StringIO()
    screen = Screen(False, Console(file=written, width=100))
    follow(
        FakeApi("http://fake", httpx.MockTransport(lambda _: httpx.Response(500))), "job-r", screen
    )
    lines = written.getvalue().splitlines()
    happened = sorted(each for events in HAPPENED.values() for each in events)
    times = [datetime.fromisoformat(f"2026-11-01T{at}Z").astimezone() for _, at, _ in happened]
    assert [line.split()[0] for line in lines] == [f"{at:%H:%M:%S}" for at in times]
    names = ["recipe", "build", "build", "train", "train", "recipe"]
    assert [line.split()[1] for line in lines] == names
