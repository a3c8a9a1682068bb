import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.asking import Endpoint, TeacherError
from workers.embeddings import Embeddings


class FakeEmbedder:
    """A FAKE server of /v1/embeddings: a text's vector is its length and its first letter."""

    def __init__(self, failures: list[int] | None = None) -> None:
        self.failures = failures or []
        self.texts: list[list[str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.failures:
            return httpx.Response(self.failures.pop(0), text="not now")
        body = json.loads(request.content)
        self.texts.append(body["input"])
        rows = [
            {"index": place, "embedding": [float(len(text)), float(ord(text[0]))]}
            for place, text in enumerate(body["input"])
        ]
        return httpx.Response(200, json={"data": rows[::-1]})


def embeddings(folder: Path, server: FakeEmbedder, waits: list[float] | None = None) -> Embeddings:
    http = httpx.Client(transport=httpx.MockTransport(server))
    endpoint = Endpoint("embedder", "http://fake/v1", "small")
    return Embeddings(endpoint, folder, http, sleep=(waits if waits is not None else []).append)


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
    waits: list[float] = []
    server = FakeEmbedder([429, 503])
    assert embeddings(tmp_path, server, waits)(["a"]).shape == (1, 2)
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(("failures", "asked"), [([404] * 9, 1), ([500] * 9, 6)])
def test_a_server_without_embeddings_is_named(
    tmp_path: Path, failures: list[int], asked: int
) -> None:
    server = FakeEmbedder(list(failures))
    with pytest.raises(TeacherError, match="embedder at http://fake/v1 gives no embeddings"):
        embeddings(tmp_path, server)(["a"])
    assert len(failures) - len(server.failures) == asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [{"data": []}, {"data": [{"index": 0, "embedding": [float("inf")]}]}, {"error": "x"}],
    ids=["too few", "infinite", "no data"],
)
def test_an_answer_that_is_none_is_refused(tmp_path: Path, body: object) -> None:
    def server(request: httpx.Request) -> httpx.Response:  # A fake, as above.
        return httpx.Response(200, content=json.dumps(body))

    http = httpx.Client(transport=httpx.MockTransport(server))
    with pytest.raises(TeacherError, match="gives no embeddings"):
        Embeddings(Endpoint("e", "http://fake/v1", "m"), tmp_path, http)(["a"])
