"""A preview asks, judges and stores nothing."""

import asyncio
import dataclasses
import threading

import httpx
import pytest
from sqlalchemy import func, select

from service.preview import PreviewRequest, preview
from service.problems import Problem
from service.site import Site
from service.spec import JobSpec
from service.tables import Chunk, Job
from tests.service.fakes import FakeTeacher
from tests.service.given import add_file, add_teacher, build, spec


async def test_the_first_rows_are_rendered_asked_and_judged(
    site: Site, api: httpx.AsyncClient, seeds: str, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    body = {"spec": {"kind": "build", "build": build(seeds)}, "rows": 3}
    found = (await api.post("/api/v1/jobs/preview", json=body)).json()
    assert [row["prompt"][-1]["content"][:2] for row in found["rows"]] == ["0?", "1?", "2?"]
    assert {(row["end"], row["reason"]) for row in found["rows"]} == {("rejected", "no_answer")}
    assert [call["text"] for row in found["rows"] for call in row["calls"]] == ["x"] * 3
    assert len(teacher_server.asked) == 3
    with site.sessions.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.count()).select_from(Chunk)) == 0


async def test_rows_in_the_recipe_are_enough(
    site: Site, api: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    rows = [{"question": "1 + 1?", "answer": 2}]
    body = {"spec": {"kind": "build", "build": build("x") | {"seeds": rows}}}
    found = (await api.post("/api/v1/jobs/preview", json=body)).json()
    assert len(found["rows"]) == 1


async def test_what_cannot_be_previewed_is_said(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    for wrong, words in (
        ({"kind": "serve", "model": "org/m", "name": "t"}, "a preview needs a build"),
        ({"kind": "build", "build": build(seeds, teacher="u")}, "no teacher 'u'"),
        ({"kind": "build", "build": build(seeds, template="{{ nothing }}")}, "no field 'nothing'"),
    ):
        answer = await api.post("/api/v1/jobs/preview", json={"spec": wrong})
        assert answer.status_code in (404, 422)
        assert words in answer.json()["detail"]


async def test_a_teacher_that_is_away_leaves_rows_unanswered(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    body = {"spec": {"kind": "build", "build": build(seeds)}, "rows": 1}
    (row,) = (await api.post("/api/v1/jobs/preview", json=body)).json()["rows"]
    assert (row["end"], row["calls"]) == ("unanswered", [])
    assert "127.0.0.1" in row["detail"]


async def test_a_method_is_previewed_as_the_job_would_run_it(
    site: Site, api: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    tasks = [{"instruction": f"Name {n} rivers of Asia."} for n in range(4)]
    for method, words in (
        ({"kind": "evol_instruct", "rounds": 1}, "Rewrite the one below"),
        ({"kind": "self_instruct"}, "Write one more task"),
    ):
        spec = {"kind": "if", "teacher": "t", "seeds": tasks, "method": method}
        body = {"spec": {"kind": "build", "build": spec}, "rows": 2}
        rows = (await api.post("/api/v1/jobs/preview", json=body)).json()["rows"]
        assert len(rows) == 2
        assert all(words in asked["messages"][-1]["content"] for asked in teacher_server.asked[:2])
        # The fake says "x": no instruction that is worth an answer.
        assert {row["reason"] for row in rows} <= {"not_evolved", "no_instruction", None}
        teacher_server.asked.clear()


async def test_what_only_workers_can_do_is_said(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    shots = "{% for d in demonstrations %}{{ d.question }}{% endfor %}{{ question }}"
    for changes, words in (
        ({"demonstrations": 1, "template": shots, "demonstration_tokens": 9}, "the tokenizer of"),
        ({"kind": "if", "method": {"kind": "magpie"}}, "without prompts of its own"),
        ({"kind": "rescore", "signal": {"top_k": 2}}, "without prompts of its own"),
    ):
        spec = build(seeds) | changes
        if spec["kind"] == "if":
            del spec["seeds"]
        body = {"spec": {"kind": "build", "build": spec}}
        answer = await api.post("/api/v1/jobs/preview", json=body)
        assert answer.status_code == 422, answer.text
        assert words in answer.text


async def test_what_the_evaluation_set_holds_is_not_asked(
    site: Site, api: httpx.AsyncClient, seeds: str, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    held = add_file(site, '{"question": "1?"}\n', "held-out.jsonl")
    body = {"spec": {"kind": "build", "build": build(seeds, decontaminate=held)}, "rows": 3}
    rows = (await api.post("/api/v1/jobs/preview", json=body)).json()["rows"]
    assert [row["reason"] for row in rows] == ["no_answer", "contaminated", "no_answer"]
    assert len(teacher_server.asked) == 2
    torn = add_file(site, "{", "torn.jsonl")
    body["spec"]["build"]["decontaminate"] = torn
    refused = await api.post("/api/v1/jobs/preview", json=body)
    assert (refused.status_code, "torn.jsonl: line 1" in refused.text) == (422, True)
    body["spec"]["build"]["decontaminate"] = "nobody"
    refused = await api.post("/api/v1/jobs/preview", json=body)
    assert refused.json()["errors"][0]["location"] == "build.decontaminate"


def is_even(answer: str, gold: str) -> bool:
    """A user's verifier."""
    return int(gold) % 2 == 0


def never(answer: str, gold: str) -> bool:
    """A user's verifier that hangs on one row."""
    if gold == "1":
        HANGS.wait(60)
    return True


HANGS = threading.Event()


def verified_by(seeds: str, function: str) -> JobSpec:
    verify = {"kind": "python", "function": f"{__name__}:{function}"}
    return spec(kind="build", build=build(seeds, answer_pattern="(x)", verify=verify))


async def test_a_verifier_of_the_users_runs_where_it_is_allowed(
    site: Site, seeds: str, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, url=teacher_server.url)
    wanted = PreviewRequest(spec=verified_by(seeds, "is_even"), rows=2)
    with pytest.raises(Problem, match="ALLOW_PYTHON_VERIFIERS=true allows") as problem:
        await asyncio.to_thread(preview, site, wanted)
    assert problem.value.faults[0].location == "build.verify"
    settings = site.settings.model_copy(update={"allow_python_verifiers": True})
    allowed = dataclasses.replace(site, settings=settings)
    found = await asyncio.to_thread(preview, allowed, wanted)
    assert [row.end for row in found.rows] == ["accepted", "rejected"]
    missing = PreviewRequest(spec=verified_by(seeds, "nobody"))
    with pytest.raises(Problem, match="can't be imported"):
        await asyncio.to_thread(preview, allowed, missing)
    wanted = PreviewRequest(spec=verified_by(seeds, "never"), rows=2)
    try:
        found = await asyncio.to_thread(preview, allowed, wanted, 0.5)
    finally:
        HANGS.set()
    assert [row.end for row in found.rows] == ["accepted", "unanswered"]
    assert found.rows[1].detail.startswith("no verdict")
