"""A FAKE teacher: an OpenAI-like server that adds two numbers, in a process of its own.

It answers at once or after `delay_s`, deterministically, and counts what it is asked:

    python tests/workers/stub_teacher.py --port-file FILE [--delay-s 0.02]
    GET  /stats    {"requests", "answered", "in_flight", "most_in_flight", "distinct", "probes"}
    POST /faults   {"delay_s": 0.5, "root": "/other/weights"}
    POST /faults   {"status": 503, "times": 3, "after": 100, "headers": {...}, "body": "..."}

A sum that 7 divides is answered wrongly, one that 11 divides is cut off: builds have rejects.
"""

import argparse
import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Stub:
    """What the server counts and how it is told to fail."""

    delay_s: float = 0.0
    root: str = "/models/stub"
    probes: int = 0
    """Questions for one token: who asks looks whether it is there."""
    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    traceparents: list[str] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    beginnings: Counter[str] = field(default_factory=Counter)
    """Answers by the prompt's first word: tests tell their builds apart by it."""
    fault: dict[str, Any] = field(default_factory=dict)


STUB = web.AppKey("stub", Stub)
KEY = "right-key"


def make_app(delay_s: float = 0.0) -> web.Application:
    app = web.Application()
    app[STUB] = Stub(delay_s)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/tokenize", tokenize)
    app.router.add_get("/stats", stats)
    app.router.add_post("/faults", set_fault)
    return app


async def complete(request: web.Request) -> web.StreamResponse:
    stub = request.app[STUB]
    if (await request.json()).get("max_tokens") == 1:
        return probe(stub)
    stub.requests += 1
    stub.traceparents += request.headers.getall("traceparent", [])
    stub.in_flight += 1
    stub.most_in_flight = max(stub.most_in_flight, stub.in_flight)
    try:
        body = await request.json()
        if stub.fault.get("times", 0) > 0 and stub.answered >= stub.fault.get("after", 0):
            stub.fault["times"] -= 1
            return web.Response(
                status=stub.fault["status"],
                headers=stub.fault.get("headers", {}),
                text=stub.fault.get("body", "told to fail"),
            )
        if request.headers.get("Authorization") == "Bearer wrong-key":
            return web.Response(status=401, text="wrong key")
        if body["model"] != "stub":
            return web.Response(status=404, text=f"no model {body['model']}")
        prompt = body["messages"][-1]["content"]
        stub.prompts.add(prompt)
        if stub.delay_s:
            await asyncio.sleep(stub.delay_s)
        stub.answered += 1
        stub.beginnings[prompt.split()[0]] += 1
        if body.get("stream"):
            usage = (body.get("stream_options") or {}).get("include_usage", False)
            return await stream(request, answer(prompt), usage)
        return web.json_response(answer(prompt))
    finally:
        stub.in_flight -= 1


def probe(stub: Stub) -> web.Response:
    stub.probes += 1
    if stub.fault.get("times", 0) > 0 and stub.answered >= stub.fault.get("after", 0):
        stub.fault["times"] -= 1
        return web.Response(status=stub.fault["status"], text="told to fail")
    return web.json_response({"choices": [{"message": {"content": "x"}}]})


async def stream(request: web.Request, whole: dict[str, Any], usage: bool) -> web.StreamResponse:
    """The same answer, a word at a time; with `usage` a last piece that tells the tokens."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in whole["choices"][0]["message"]["content"].split():
        choice = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
        await response.write(piece(whole, choices=[choice], usage=None))
    if usage:
        await response.write(piece(whole, choices=[]))
    await response.write(b"data: [DONE]\n\n")
    return response


def piece(whole: dict[str, Any], **changes: Any) -> bytes:
    chunk = whole | {"object": "chat.completion.chunk", "created": 0} | changes
    return f"data: {json.dumps(chunk)}\n\n".encode()


def answer(prompt: str) -> dict[str, Any]:
    numbers = [int(number) for number in re.findall(r"\d+", prompt)[-2:]]
    total = sum(numbers)
    said = total + 1 if total % 7 == 0 else total
    text = f"{' plus '.join(map(str, numbers))} makes {said}. The answer is {said}."
    finish = "length" if total % 11 == 0 else "stop"
    return {
        "id": "stub",
        "object": "chat.completion",
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())},
    }


async def embed(request: web.Request) -> web.Response:
    """A text's vector: its length and its last character."""
    texts = (await request.json())["input"]
    rows = [
        {"index": place, "embedding": [float(len(text)), float(ord(text[-1]))]}
        for place, text in enumerate(texts)
    ]
    return web.json_response({"data": rows})


async def models(request: web.Request) -> web.Response:
    entry = {"id": "stub", "max_model_len": 4096, "root": request.app[STUB].root}
    return web.json_response({"object": "list", "data": [entry]})


async def tokenize(request: web.Request) -> web.Response:
    return web.json_response({"tokens": [1, 2, 3]})


async def stats(request: web.Request) -> web.Response:
    stub = request.app[STUB]
    return web.json_response(
        {
            "requests": stub.requests,
            "answered": stub.answered,
            "in_flight": stub.in_flight,
            "most_in_flight": stub.most_in_flight,
            "distinct": len(stub.prompts),
            "probes": stub.probes,
            "traceparents": stub.traceparents,
            "beginnings": stub.beginnings,
        }
    )


async def set_fault(request: web.Request) -> web.Response:
    stub, told = request.app[STUB], await request.json()
    stub.delay_s = told.pop("delay_s", stub.delay_s)
    stub.root = told.pop("root", stub.root)
    stub.fault = told
    return web.Response()


async def serve(port_file: Path, delay_s: float, port: int) -> None:
    runner = web.AppRunner(make_app(delay_s))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    port = runner.addresses[0][1]
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(port))
    draft.rename(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fake teacher.")
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(serve(options.port_file, options.delay_s, options.port))
