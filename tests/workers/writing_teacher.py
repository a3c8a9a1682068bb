"""A FAKE teacher in a thread of this process: its answer is a function of the prompt's text.

With log-probs asked for it sends them as vLLM does: tokens are its answer's words, numbered by
their length, and of k candidates a token the likeliest is the word's.

A prompt of token ids is scored as vLLM scores it: every fourth token, by its number, is not among
the k likeliest and comes on top of them. Without log-probs asked for, a prompt of token ids is
continued with what `write` makes of the request's seed.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class WritingTeacher:
    """What it was asked, and where."""

    def __init__(self, say: Callable[[str], str], write: Callable[[int], str]) -> None:
        self.prompts: list[str] = []
        self.scored: list[list[int]] = []
        self.url = ""
        self.continued: list[dict[str, Any]] = []
        self._say, self._write = say, write
        self._loop = asyncio.new_event_loop()

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        self.prompts.append(prompt)
        text = self._say(prompt)
        choice: dict[str, Any] = {"message": {"content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            ids = [len(word) for word in text.split()]
            choice["token_ids"] = ids
            choice["logprobs"] = {"content": [_token(one, body["top_logprobs"]) for one in ids]}
        usage = {"prompt_tokens": 5, "completion_tokens": len(text.split())}
        return web.json_response({"choices": [choice], "usage": usage})

    async def _complete_tokens(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids: list[int] = body["prompt"]
        if "prompt_logprobs" not in body:
            self.continued.append(body)
            written = {"text": self._write(body["seed"]), "finish_reason": "stop"}
            return web.json_response({"choices": [written], "usage": {"completion_tokens": 7}})
        self.scored.append(ids)
        choice: dict[str, Any] = {"text": "x", "finish_reason": "length"}
        top_k = body["prompt_logprobs"]
        choice["prompt_logprobs"] = [None, *(_scored(one, top_k) for one in ids[1:])]
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return web.json_response({"choices": [choice], "usage": usage})

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "stub", "root": "stub"}]})

    async def _serve(self, ready: threading.Event) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete_tokens)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        return runner

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._serve(ready))
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextmanager
def writing_teacher(
    say: Callable[[str], str], write: Callable[[int], str] = str
) -> Iterator[WritingTeacher]:
    """It answers until the block ends."""
    teacher, ready = WritingTeacher(say, write), threading.Event()
    thread = threading.Thread(target=teacher.run, args=(ready,))
    thread.start()
    try:
        assert ready.wait(10)
        yield teacher
    finally:
        teacher.stop()
        thread.join()


def _token(token: int, top_k: int) -> dict[str, Any]:
    tops = [
        {"token": f"token_id:{token + place}", "logprob": math.log(0.5) - place}
        for place in range(top_k)
    ]
    return {"token": f"token_id:{token}", "logprob": math.log(0.5), "top_logprobs": tops}


def _scored(token: int, top_k: int) -> dict[str, dict[str, Any]]:
    """The own token first or, where 4 divides it, above the k likeliest with a worse rank."""
    unlikely = token % 4 == 0
    others = [token + place for place in range(1, top_k + unlikely)]
    ranked = others if unlikely else [token, *others]
    found = {
        str(one): {"logprob": math.log(0.5) - place, "rank": place + 1}
        for place, one in enumerate(ranked)
    }
    return {str(token): {"logprob": -9.0, "rank": 99}} | found
