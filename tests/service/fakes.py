"""Fakes at the boundary: a broker that notes what it was told, a teacher at the HTTP transport."""

from collections import Counter
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from service.broker import QUEUES


class FakeBroker:
    """Fake: notes rings in place of sending them. `away` is a broker that can't be reached."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str]] = []
        self.away = False
        self.serving = dict.fromkeys(QUEUES.values(), 1)

    def workers(self) -> dict[str, int]:
        return {} if self.away else self.serving

    def ring(self, kind: str, job_id: str) -> bool:
        if not self.away:
            self.rung.append((kind, job_id))
        return not self.away

    def depth(self, queue: str) -> int | None:
        return None if self.away else Counter(QUEUES[kind] for kind, _ in self.rung)[queue]


class FakeTeacher:
    """Fake: an OpenAI-compatible server on localhost that answers every chat with one token."""

    def __init__(self) -> None:
        self.model = "m"
        self.key: str | None = None
        self.max_logprobs = 20
        self.says_its_limit = True
        self.completion_status = 200
        self.asked: list[dict[str, Any]] = []
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self._server.make_url("/v1"))

    async def __aenter__(self) -> "FakeTeacher":
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def _refused(self, request: web.Request) -> bool:
        return self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}"

    async def _models(self, request: web.Request) -> web.Response:
        if self._refused(request):
            return web.json_response({"error": {"message": "bad key"}}, status=401)
        entry = {"id": self.model, "max_model_len": 512, "root": "/models/m"}
        return web.json_response({"object": "list", "data": [entry]})

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        if self.completion_status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.completion_status)
        if body.get("top_logprobs", 0) > self.max_logprobs:
            limit = (
                f"greater than max allowed: {self.max_logprobs}" if self.says_its_limit else "no"
            )
            return web.json_response({"error": {"message": limit}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "x"}}]})
