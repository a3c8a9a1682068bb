"""The completion cache: what was asked once is not asked again by those who opt in."""

from pathlib import Path

import pytest

from prompts.plan import Request
from prompts.record import Call, Message
from prompts.spec import Sampling
from service.identity import Identity
from service.site import Site
from tests.workers.conftest import StubTeacher, get_job, register, run_build, submit, sums
from workers.cache import Cache

ME = Identity(served_model="m", root="/a")
SAID = Call(row="a", text="yes", finish_reason="stop", prompt_tokens=3)


def request(row: str = "a", text: str = "Hi", sample: int = 0, seed: int = 1) -> Request:
    sampling = Sampling(seed=seed)
    return Request(row, 0, sample, (Message(role="user", content=text),), sampling, "t")


def run(site: Site, job_id: str) -> dict[str, int]:
    run_build(site, job_id)
    return dict(get_job(site, job_id).result)


@pytest.mark.slow
def test_a_build_that_opts_in_pays_once(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    first = run(site, submit(site, sums(60), cache=True))
    again = run(site, submit(site, sums(60), cache=True, name="again"))
    assert stub.stats()["requests"] == 60 == first["requests"]
    assert (again["requests"], again["accepted"]) == (0, first["accepted"])
    assert run(site, submit(site, sums(60), name="without"))["requests"] == 60
    assert stub.stats()["requests"] == 120


def test_the_answer_comes_back_as_the_asking_rows_own(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache.key(request(), ME)
    assert cache.get(key, request()) is None
    cache.put(key, SAID)
    found = cache.get(cache.key(request("b"), ME), request("b"))
    assert found == SAID.model_copy(update={"row": "b"})


@pytest.mark.parametrize(
    "other",
    [request(text="Ho"), request(sample=1), request(seed=2)],
    ids=("text", "sample", "seed"),
)
def test_another_question_has_another_key(tmp_path: Path, other: Request) -> None:
    cache = Cache(tmp_path)
    assert cache.key(other, ME) != cache.key(request(), ME)
    assert cache.key(request(), ME.model_copy(update={"root": "/b"})) != cache.key(request(), ME)


def test_neither_refusals_nor_torn_files_are_given_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache.key(request(), ME)
    cache.put(key, SAID.model_copy(update={"finish_reason": "error"}))
    assert cache.get(key, request()) is None
    cache.put(key, SAID)
    (path,) = (tmp_path / "cache").glob("*/*")
    path.write_text('{"row": ')
    assert cache.get(key, request()) is None
