from pathlib import Path

import pytest

from service import teachers
from service.problems import Problem
from service.site import Site
from service.teachers import Registration
from tests.service.fakes import FakeTeacher
from tests.service.given import add_model, add_teacher


def registration(server: FakeTeacher, **fields: str) -> Registration:
    return Registration.model_validate(
        {"name": "t", "base_url": server.url, "served_model": "m", **fields}
    )


async def test_a_probe_finds_what_a_teacher_can_do(teacher_server: FakeTeacher) -> None:
    found = await teachers.probe(registration(teacher_server))
    assert found.ok
    assert (found.context_tokens, found.max_logprobs, found.revision) == (512, 20, "/models/m")


@pytest.mark.parametrize("limit", [0, 5, 20, 1000])
async def test_the_logprobs_limit_is_found_by_asking(
    teacher_server: FakeTeacher, limit: int
) -> None:
    teacher_server.says_its_limit = False
    teacher_server.max_logprobs = limit
    assert (await teachers.probe(registration(teacher_server))).max_logprobs == limit
    assert len(teacher_server.asked) <= 13


async def test_weights_at_hand_give_revision_and_tokenizer(
    teacher_server: FakeTeacher, tmp_path: Path
) -> None:
    model = add_model(tmp_path / "m", {"a": 0})
    (model / "model.safetensors").write_bytes(b"one")
    first = await teachers.probe(registration(teacher_server, model=str(model)))
    (model / "model.safetensors").write_bytes(b"two")
    second = await teachers.probe(registration(teacher_server, model=str(model)))

    assert first.tokenizer_sha256 == second.tokenizer_sha256 == teachers.tokenizer_digest(model)
    assert first.revision != second.revision


async def test_an_unreachable_teacher_says_so() -> None:
    nobody = Registration(name="t", base_url="http://127.0.0.1:9", served_model="m")
    with pytest.raises(Problem) as raised:
        await teachers.probe(nobody)
    assert raised.value.type == "teacher-unreachable"
    again = await teachers.probe_again(nobody)
    assert not again.ok
    assert "127.0.0.1:9" in (again.error or "")


async def test_a_wrong_model_name_is_told_those_served(teacher_server: FakeTeacher) -> None:
    with pytest.raises(Problem, match="It serves: m") as raised:
        await teachers.probe(registration(teacher_server, served_model="n"))
    assert raised.value.type == "teacher-unknown-model"


async def test_a_refused_key_says_so(
    teacher_server: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher_server.key = "right"
    monkeypatch.setenv("TEACHER_KEY", "wrong")
    with pytest.raises(Problem) as raised:
        await teachers.probe(registration(teacher_server, api_key_env="TEACHER_KEY"))
    assert raised.value.type == "teacher-refused-key"
    assert "wrong" not in raised.value.detail

    monkeypatch.setenv("TEACHER_KEY", "right")
    assert (await teachers.probe(registration(teacher_server, api_key_env="TEACHER_KEY"))).ok


async def test_a_key_that_is_not_set_is_told_before_asking(teacher_server: FakeTeacher) -> None:
    with pytest.raises(Problem, match="NO_SUCH_KEY is not set"):
        await teachers.probe(registration(teacher_server, api_key_env="NO_SUCH_KEY"))
    assert teacher_server.asked == []


@pytest.mark.parametrize(
    ("status", "type"), [(500, "teacher-unreachable"), (400, "teacher-refused-request")]
)
async def test_a_server_that_lists_but_does_not_answer_is_not_ok(
    teacher_server: FakeTeacher, status: int, type: str
) -> None:
    teacher_server.completion_status = status
    with pytest.raises(Problem) as raised:
        await teachers.probe(registration(teacher_server))
    assert raised.value.type == type


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_base_urls_end_in_v1(url: str) -> None:
    assert Registration(name="t", base_url=url, served_model="m").base_url == "http://h:1/v1"


@pytest.mark.parametrize("url", ["", "h:1/v1", "ftp://h/v1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be a URL"):
        Registration(name="t", base_url=url, served_model="m")


def test_registering_again_replaces(site: Site) -> None:
    add_teacher(site, url="http://one:1")
    add_teacher(site, url="http://two:1")
    with site.sessions.reading() as session:
        assert [row.base_url for row in teachers.listing(session)] == ["http://two:1/v1"]


def test_an_unknown_teacher_is_told_with_near_ones(site: Site) -> None:
    add_teacher(site, "demo-teacher")
    with pytest.raises(Problem, match="Did you mean demo-teacher"), site.sessions.reading() as s:
        teachers.get(s, "demo-teecher")
