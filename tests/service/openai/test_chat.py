"""Chats with a served student, whom `model` names as jobs and pages name it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service import teachers
from service.probe import Probe
from service.site import Site
from service.tables import Job, State
from service.teachers import Registration
from tests.service.fakes import FakeTeacher
from tests.service.given import add_model


def publish(site: Site, folder: Path) -> str:
    """A model called student, the next version; its id."""
    with site.sessions.writing.begin() as session:
        path = add_model(folder)
        return site.store.publish(session, "model", "student", path, summary={}, inputs=[]).id


def serve(site: Site, model_id: str, url: str, state: State = State.RUNNING) -> str:
    """A serve job of a model, and the teacher that it registered; the job's id."""
    name = f"served-{model_id}"
    with site.sessions.writing.begin() as session:
        told = {"kind": "serve", "model": model_id, "name": name}
        session.add(Job(id=f"job-{model_id}", kind="serve", name=name, state=state, spec=told))
        session.flush()
        registration = Registration(name=name, base_url=url, served_model="m")
        teachers.register(session, registration, Probe(ok=True))
        teachers.get(session, name).serve_job_id = f"job-{model_id}"
    return f"job-{model_id}"


async def say(api: httpx.AsyncClient, model: str) -> httpx.Response:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "2 + 3?"}]}
    return await api.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("by", ["id", "name", "version"])
async def test_a_served_student_answers_by_id_and_name(
    site: Site, api: httpx.AsyncClient, teacher_server: FakeTeacher, tmp_path: Path, by: str
) -> None:
    older, newer = publish(site, tmp_path / "1"), publish(site, tmp_path / "2")
    serve(site, older, "http://127.0.0.1:9/v1")
    serve(site, newer, teacher_server.url)
    answer = await say(api, {"id": newer, "name": "student", "version": "student@2"}[by])
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "x"
    assert teacher_server.asked[-1]["model"] == "m"
    assert (await say(api, older)).status_code == 502  # that one's server is not there


async def test_a_student_that_is_not_served_says_how(
    site: Site, api: httpx.AsyncClient, teacher_server: FakeTeacher, tmp_path: Path
) -> None:
    model_id = publish(site, tmp_path / "1")
    refused = await say(api, "student")
    assert refused.status_code == 404
    assert f"retort serve {model_id}" in refused.json()["error"]["message"]
    job_id = serve(site, model_id, teacher_server.url, State.QUEUED)
    assert (await say(api, "student")).status_code == 404
    with site.sessions.writing.begin() as session:
        session.get_one(Job, job_id).state = State.RUNNING
    assert (await say(api, "student")).status_code == 200
    assert len(teacher_server.asked) == 1
