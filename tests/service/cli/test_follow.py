"""Following a job: what is told, and in which order."""

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from rich.console import Console

from service.cli.client import Api, Event
from service.cli.failure import JOB_FAILED
from service.cli.follow import exit_code, follow
from service.cli.options import Screen
from service.cli.story import Story, describe

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
    """A FAKE of the API: a recipe, each of whose parts has a stream of its own."""

    def __init__(self, family: dict[str, Any]) -> None:
        super().__init__("http://fake", httpx.MockTransport(lambda _: httpx.Response(500)))
        self._family = family

    def get(self, path: str, **_: Any) -> Any:
        return self._family

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        for number, at, state in HAPPENED[job_id]:
            view = {"id": number, "job_id": job_id, "type": "state", "data": {"state": state}}
            yield Event(number, "state", view | {"at": f"2026-11-01T{at}Z"})


def test_a_training_tells_the_terms_of_its_loss_and_a_sample() -> None:
    def event(type_: str, **data: Any) -> Event:
        return Event(1, type_, {"id": 1, "job_id": "job-b", "type": type_, "data": data})

    story = Story()
    place = {"step": 3, "steps": 9, "epoch": 0.1, "learning_rate": 1e-3, "tokens_per_s": 900.0}
    story.hear(event("step", **place, loss=0.5, grad_norm=1.5, forward_kl=0.25, entropy=2.0))
    job = {"id": "job-b", "state": "running", "progress": {"done": 3, "unit": "steps"}}
    wanted = "loss 0.5000, forward_kl 0.2500, entropy 2.0000, gradient norm 1.5000, 900 tokens/s"
    assert story.figures(job).endswith(wanted)
    measured = event("validation", step=3, loss=0.5, forward_kl=0.25, entropy=2.0)
    wanted = "step 3: validation loss 0.5000, forward_kl 0.2500, entropy 2.0000"
    assert describe(measured) == wanted
    row = {"id": "r", "prompt": "a", "reference": "b", "student": "c", "ended": True}
    told = "step 3: to 'a' it answers 'c', the dataset 'b'"
    assert describe(event("samples", step=3, rows=[row])) == told


def test_what_is_replayed_is_told_in_its_order_and_with_its_time() -> None:
    written = io.StringIO()
    screen = Screen(False, Console(file=written, width=100))
    follow(FakeApi(FAMILY), "job-r", screen)
    lines = written.getvalue().splitlines()
    happened = sorted(each for events in HAPPENED.values() for each in events)
    times = [datetime.fromisoformat(f"2026-11-01T{at}Z").astimezone() for _, at, _ in happened]
    assert [line.split()[0] for line in lines] == [f"{at:%H:%M:%S}" for at in times]
    names = ["recipe", "build", "build", "train", "train", "recipe"]
    assert [line.split()[1] for line in lines] == names


@pytest.mark.parametrize("reason", ["paused_smoke", "paused_teacher_changed"])
def test_a_part_that_waits_for_a_person_is_waited_for_no_longer(reason: str) -> None:
    build, train = FAMILY["children"]
    held = build | {"state": "paused", "reason": reason, "detail": "Look at them."}
    family = FAMILY | {"state": "running", "children": [held, train | {"state": "queued"}]}
    found = follow(FakeApi(family), "job-r", Screen(False, Console(file=io.StringIO())))
    assert found == held
    assert exit_code(found) == JOB_FAILED


def test_a_teacher_that_is_away_is_waited_for() -> None:
    build, train = FAMILY["children"]
    away = build | {"state": "paused", "reason": "paused_teacher"}
    api = FakeApi(FAMILY | {"state": "running", "children": [away, train]})
    seen: list[str] = []

    def until(job: dict[str, Any]) -> bool:
        seen.append(job["state"])
        return len(seen) == 3

    found = follow(api, "job-r", Screen(False, Console(file=io.StringIO())), until)
    assert found["id"] == "job-r"
    assert len(seen) >= 3
