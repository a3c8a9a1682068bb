"""A prompt to two teachers, side by side. The teachers are labelled fakes."""

import httpx
import pytest
from aiohttp import web

from service.site import Site
from tests.service.dashboard.asked import Seen, token
from tests.service.dashboard.world import XSS
from tests.service.fakes import FakeTeacher
from tests.service.given import add_teacher

HTMX = {"HX-Request": "true"}


class Hostile(FakeTeacher):
    """FAKE: answers with markup, and counts tokens."""

    async def _complete(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        choice = {"message": {"content": f"{XSS[0]} 42"}, "finish_reason": "length"}
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        return web.json_response({"choices": [choice], "usage": usage})


async def form(browser: httpx.AsyncClient, **fields: str) -> dict[str, str]:
    return {"csrf": await token(browser), "prompt": "2 and 40?", **fields}


async def test_two_answer_beside_each_other_and_one_may_fail(
    site: Site, browser: httpx.AsyncClient
) -> None:
    async with Hostile() as teacher:
        add_teacher(site, "good", url=teacher.url)
        add_teacher(site, "away", url="http://127.0.0.1:9/v1")
        given = await form(browser, a="good", b="away", system="Short.", max_tokens="5")
        answer = await browser.post("/playground", data=given)
    seen = Seen(answer.text)
    assert "script" in {tag for tag, at in seen.tags if at.get("src")}
    assert f"{XSS[0]} 42" in seen.text
    assert "7 prompt and 5 completion tokens" in seen.text
    assert "ended by length" in seen.text
    assert "does not answer" in seen.text
    asked = teacher.asked[0]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("m", 5, 0)
    assert [turn["role"] for turn in asked["messages"]] == ["system", "user"]
    assert "2 and 40?" in seen.text, "the question stays in the form"


async def test_a_script_gets_the_answers_and_the_address(
    site: Site, browser: httpx.AsyncClient
) -> None:
    async with Hostile() as teacher:
        add_teacher(site, "good", url=teacher.url)
        given = await form(browser, a="good")
        answer = await browser.post("/playground", data=given, headers=HTMX)
        assert "<form" not in answer.text
        address = answer.headers["HX-Replace-Url"]
        again = Seen((await browser.get(address)).text).text
        assert "2 and 40?" in again
        assert len(teacher.asked) == 1, "looking at an address asks nobody"
        long = await browser.post("/playground", data=given | {"prompt": "x" * 5000}, headers=HTMX)
        assert "HX-Replace-Url" not in long.headers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"a": ""}, "a"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": "0"}, "max_tokens"),
        ({"prompt": " "}, "prompt"),
    ],
)
async def test_what_cannot_be_asked_is_told_with_its_place(
    browser: httpx.AsyncClient, fields: dict[str, str], words: str
) -> None:
    answer = await browser.post("/playground", data=await form(browser, **{"a": "t", **fields}))
    assert answer.status_code == 422
    assert f"<code>{words}</code>" in answer.text


async def test_who_is_not_known_and_what_the_server_refuses_are_told(
    site: Site, browser: httpx.AsyncClient
) -> None:
    async with FakeTeacher() as teacher:
        teacher.completion_status = 400
        add_teacher(site, "strict", url=teacher.url)
        answer = await browser.post("/playground", data=await form(browser, a="strict", b="nobody"))
    seen = Seen(answer.text).text
    assert "answered 400: no" in seen
    assert "nobody" in seen
    assert answer.status_code == 200
