import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.asking import Endpoint, TeacherError
from workers.embeddings import Embeddings


class FakeEmbedder:
    """A FAKE server of /v1/embeddings: a text's vector is its length and its first letter."""

    def __init__(
        self, failures: list[int] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.failures, self.headers = failures or [], headers
        self.texts: list[list[str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.failures:
            return httpx.Response(self.failures.pop(0), headers=self.headers, text="not now")
        body = json.loads(request.content)
        self.texts.append(body["input"])
        rows = [
            {"index": place, "embedding": [float(len(text)), float(ord(text[0]))]}
            for place, text in enumerate(body["input"])
        ]
        return httpx.Response(200, json={"data": rows[::-1]})


class FakeClock:
    """A FAKE clock: only sleeping takes time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def embeddings(
    folder: Path, server: Callable[[httpx.Request], httpx.Response], clock: FakeClock | None = None
) -> Embeddings:
    transport, clock = httpx.MockTransport(server), clock or FakeClock()
    endpoint = Endpoint("embedder", "http://fake/v1", "small")
    return Embeddings(
        endpoint, folder, transport, patience_s=20, sleep=clock.sleep, clock=lambda: clock.now
    )


def test_a_text_is_asked_for_once_and_comes_from_disk_in_another_process(tmp_path: Path) -> None:
    server = FakeEmbedder()
    first = embeddings(tmp_path, server)
    vectors = first(["ab", "c", "ab"])
    assert vectors.tolist() == [[2, 97], [1, 99], [2, 97]]
    first(["c"])
    assert server.texts == [["ab", "c"]]
    again = embeddings(tmp_path, server)
    assert np.array_equal(again(["ab", "c"]), vectors[:2])
    assert server.texts == [["ab", "c"]]


def test_large_pools_are_asked_for_in_parts(tmp_path: Path) -> None:
    server = FakeEmbedder()
    texts = [f"text {number}" for number in range(300)]
    assert embeddings(tmp_path, server)(texts).shape == (300, 2)
    assert [len(part) for part in server.texts] == [128, 128, 44]


def test_a_server_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    clock = FakeClock()
    server = FakeEmbedder([429, 503])
    assert embeddings(tmp_path, server, clock)(["a"]).shape == (1, 2)
    assert clock.waits == [0.5, 1.0]


def test_a_server_that_names_a_time_is_asked_then(tmp_path: Path) -> None:
    clock = FakeClock()
    server = FakeEmbedder([429], {"Retry-After": "7"})
    assert embeddings(tmp_path, server, clock)(["a"]).shape == (1, 2)
    assert clock.waits == [7.0]


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (401, 1), (501, 1)])
def test_a_server_without_embeddings_is_named(tmp_path: Path, status: int, asked: int) -> None:
    server = FakeEmbedder([status] * 9)
    with pytest.raises(TeacherError, match="embedder at http://fake/v1 gives no embeddings") as one:
        embeddings(tmp_path, server)(["a"])
    assert not one.value.pauses
    assert 9 - len(server.failures) == asked
    assert not list(tmp_path.iterdir())


def gone(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody listens", request=request)


@pytest.mark.parametrize("server", [FakeEmbedder([500] * 99), gone], ids=["broken", "gone"])
def test_a_server_that_stays_away_pauses_the_job(
    tmp_path: Path, server: Callable[[httpx.Request], httpx.Response]
) -> None:
    clock = FakeClock()
    with pytest.raises(TeacherError, match="does not answer") as one:
        embeddings(tmp_path, server, clock)(["a"])
    assert (one.value.reason, one.value.pauses) == ("paused_teacher", True)
    assert (clock.now, max(clock.waits)) == (20, 8)
    assert not list(tmp_path.iterdir())


def test_another_models_vectors_are_not_compared(tmp_path: Path) -> None:
    def server(request: httpx.Request) -> httpx.Response:  # A fake, as above.
        text = json.loads(request.content)["input"][0]
        return httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.0] * len(text)}]})

    made = embeddings(tmp_path, server)
    made(["ab"])
    made(["cd"])
    with pytest.raises(TeacherError, match="were 2 numbers wide, and are 3") as one:
        made(["efg"])
    assert one.value.reason == "paused_teacher_changed"


@pytest.mark.parametrize(
    "body",
    [{"data": []}, {"data": [{"index": 0, "embedding": [float("inf")]}]}, {"error": "x"}],
    ids=["too few", "infinite", "no data"],
)
def test_an_answer_that_is_none_is_refused(tmp_path: Path, body: object) -> None:
    def server(request: httpx.Request) -> httpx.Response:  # A fake, as above.
        return httpx.Response(200, content=json.dumps(body))

    with pytest.raises(TeacherError, match="gives no embeddings"):
        embeddings(tmp_path, server)(["a"])
