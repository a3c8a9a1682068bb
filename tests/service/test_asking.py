"""What a teacher is sent and how its answer is read, against a FAKE server on localhost."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from prompts.plan import Request, Tokens
from prompts.record import Call, Message
from prompts.spec import Sampling
from prompts.tools import Tool
from service.asking import Endpoint, NoAnswerError, TeacherError, post

ASKED = (Message(role="user", content="Rome?"),)
TOOL = Tool.model_validate({"function": {"name": "weather"}})
CALLED = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


async def asked(
    request: Request, answer: dict[str, Any] | None, finish: str = "stop"
) -> tuple[dict[str, Any], Call]:
    """What the server was sent, and the call; without an answer there is no such route."""
    bodies: list[dict[str, Any]] = []

    async def complete(given: web.Request) -> web.Response:
        bodies.append(await given.json() | {"route": given.path})
        return web.json_response({"choices": [{"finish_reason": finish, **(answer or {})}]})

    app = web.Application()
    if answer is not None:
        for route in ("/v1/chat/completions", "/v1/completions"):
            app.router.add_post(route, complete)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        endpoint = Endpoint("t", str(server.make_url("/v1")), "m")
        call = await post(http, endpoint, request)
    return bodies[0], call


def request_of(**changes: Any) -> Request:
    given = {"row": "r", "step": 0, "sample": 0, "messages": ASKED, "sampling": Sampling()}
    return Request(**(given | {"teacher": "t"} | changes))


async def test_functions_are_sent_and_calls_are_read() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
    body, call = await asked(request_of(tools=(TOOL,)), {"message": message}, "tool_calls")
    parameters = {"type": "object", "properties": {}}
    function = {"name": "weather", "parameters": parameters}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert (call.text, call.finish_reason) == ("", "tool_calls")
    assert call.tool_calls is not None
    assert call.tool_calls[0].model_dump() == CALLED


async def test_earlier_calls_are_sent_as_the_api_has_them() -> None:
    turns = (
        Message.model_validate({"role": "assistant", "tool_calls": [CALLED]}),
        Message(role="tool", content="Sun.", tool_call_id="c"),
    )
    body, call = await asked(request_of(messages=turns), {"message": {"content": "Sunny."}})
    assert body["messages"] == [
        {"role": "assistant", "content": "", "tool_calls": [CALLED]},
        {"role": "tool", "content": "Sun.", "tool_call_id": "c"},
    ]
    assert "tools" not in body
    assert (call.text, call.tool_calls) == ("Sunny.", None)


async def test_token_ids_are_continued_until_what_ends_them() -> None:
    tokens = Tokens((1, 2), stop_ids=(4,), stop=("[/I]",))
    sampling = Sampling(stop=("END",), seed=3)
    body, call = await asked(request_of(tokens=tokens, sampling=sampling), {"text": "Do it."})
    assert (body["route"], body["prompt"]) == ("/v1/completions", [1, 2])
    assert (body["stop"], body["stop_token_ids"], body["seed"]) == (["END", "[/I]"], [4], 3)
    assert "prompt_logprobs" not in body
    assert (call.text, call.signal) == ("Do it.", None)


async def test_token_ids_are_scored_where_that_is_asked() -> None:
    place = {"2": {"logprob": -0.5, "rank": 1}}
    answer = {"text": "x", "prompt_logprobs": [None, place]}
    request = request_of(tokens=Tokens((1, 2), 1), signal_top_k=1)
    body, call = await asked(request, answer)
    assert (body["prompt_logprobs"], body["prompt"]) == (1, [1, 2])
    assert call.text == ""
    assert call.signal is not None
    assert (call.signal.token_ids, call.signal.top_logprobs) == ((2,), ((-0.5,),))
    with pytest.raises(TeacherError, match="gives no signal of the 1 likeliest"):
        await asked(request, {"text": "x"})
    with pytest.raises(TeacherError, match="completes no token ids"):
        await asked(request, None)


async def test_sampling_is_sent_under_the_servers_names() -> None:
    sampling = Sampling(enable_thinking=False, reasoning_effort="low", min_p=0.1)
    body, _ = await asked(request_of(sampling=sampling), {"message": {"content": "Yes."}})
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["reasoning_effort"], body["min_p"]) == ("low", 0.1)
    assert not {"enable_thinking", "top_k", "seed", "stop", "min_tokens"} & set(body)
    plain, _ = await asked(request_of(), {"message": {"content": "Yes."}})
    assert not {"chat_template_kwargs", "reasoning_effort", "response_format"} & set(plain)


async def test_a_schema_is_sent_as_the_reply_s_format() -> None:
    schema = {"type": "object", "properties": {"score": {"type": "number"}}}
    body, call = await asked(request_of(schema=schema), {"message": {"content": '{"score": 1}'}})
    shape = {"name": "reply", "schema": schema, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": shape}
    assert call.text == '{"score": 1}'


@pytest.mark.parametrize(
    ("message", "thought"),
    [
        ({"content": "4", "reasoning_content": "2 and 2."}, "2 and 2."),
        ({"content": "4", "reasoning": "2 and 2."}, "2 and 2."),
        ({"content": "4", "reasoning_content": ""}, None),
        ({"content": "4"}, None),
    ],
)
async def test_what_a_model_thought_is_kept_apart(
    message: dict[str, Any], thought: str | None
) -> None:
    _, call = await asked(request_of(), {"message": message})
    assert (call.text, call.reasoning) == ("4", thought)


async def test_a_request_has_its_deadline() -> None:
    begun = asyncio.Event()

    async def never(given: web.Request) -> web.Response:
        begun.set()
        await asyncio.sleep(30)
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", never)
    server = TestServer(app)
    async with server, aiohttp.ClientSession() as http:
        endpoint = Endpoint("t", str(server.make_url("/v1")), "m", timeout_s=0.2)
        started = time.monotonic()
        with pytest.raises(NoAnswerError, match="no answer within 0 s"):
            await post(http, endpoint, request_of())
        assert time.monotonic() - started < 10
    assert begun.is_set()
