"""Chats hold a teacher's registered limit, together with whoever else asks it."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service.app import create_app
from service.site import Site
from service.tables import Grant, Teacher, now
from service.turns import Turns
from tests.service.given import add_teacher
from tests.workers.conftest import StubTeacher, stub

__all__ = ["stub"]


def register(site: Site, url: str, limit: int | None) -> None:
    add_teacher(site, "stub", url=f"{url}/v1")
    with site.sessions.writing.begin() as session:
        teacher = session.get_one(Teacher, "stub")
        teacher.served_model, teacher.max_in_flight = "stub", limit


def grant(site: Site, granted: int, seconds: float) -> None:
    """Another party's, good for so many seconds."""
    until = now() + timedelta(seconds=seconds)
    fields = {"owner": "another", "job_id": "chat-1", "wanted": granted, "granted": granted}
    with site.sessions.writing.begin() as session:
        session.add(Grant(teacher="stub", until=until, **fields))


def grants(site: Site) -> list[str]:
    with site.sessions.reading() as session:
        return list(session.scalars(select(Grant.owner)))


async def chat(api: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    said = [{"role": "user", "content": "What is 2 plus 3?"}]
    body = {"model": "stub", "messages": said} | fields
    return await api.post("/v1/chat/completions", json=body, timeout=30)


async def test_chats_of_a_process_take_turns(
    api: httpx.AsyncClient, site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url, 3)
    stub.faults(delay_s=0.05)
    answers = await asyncio.gather(*(chat(api, stream=n % 2 == 0) for n in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert "makes 5" in answers[1].text
    assert stub.stats()["most_in_flight"] == 3


@pytest.mark.slow
async def test_two_processes_hold_the_limit_together(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url, 3)
    stub.faults(delay_s=0.1)
    clients = []
    for _ in range(2):
        app = create_app(site.settings)
        transport = httpx.ASGITransport(app)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
    answers = await asyncio.gather(*(chat(client) for client in clients for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert stub.stats()["most_in_flight"] == 3


async def test_a_teacher_that_is_taken_answers_429(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url, 2)
    grant(site, 2, seconds=3600)
    impatient = site.settings.model_copy(update={"teacher_patience_s": 0.3})
    transport = httpx.ASGITransport(create_app(impatient))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as api:
        refused = await chat(api)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"]["code"] == "teacher_busy"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert stub.stats()["requests"] == 0


async def test_a_grant_that_nobody_renews_runs_out(
    api: httpx.AsyncClient, site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url, 2)
    grant(site, 2, seconds=-1)
    assert (await chat(api)).status_code == 200


async def test_a_teacher_without_a_limit_costs_no_write(
    api: httpx.AsyncClient, site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url, None)
    assert (await chat(api)).status_code == 200
    assert grants(site) == []


async def test_what_ended_gives_its_grant_back(site: Site) -> None:
    register(site, "http://127.0.0.1:9", 2)
    turns = Turns()
    async with turns.turn(site, "stub"):
        assert len(grants(site)) == 1
    await turns.close()
    assert grants(site) == []


async def test_whoever_gives_up_waiting_leaves_nothing_behind(site: Site) -> None:
    register(site, "http://127.0.0.1:9", 1)
    turns = Turns()

    async def take() -> None:
        async with turns.turn(site, "stub"):
            pass

    async with turns.turn(site, "stub"):
        waiting = asyncio.create_task(take())
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(take(), 5)
    await turns.close()
