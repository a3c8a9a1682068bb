"""One prompt to two teachers, or served students, side by side: chat completions by the path that
`/v1/chat/completions` takes. What is asked stands in the address; nothing is stored."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import anyio.to_thread
from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import Field, ValidationError

from prompts.record import Frozen
from service import errors, registry
from service.access import Caller
from service.dashboard.page import page, page_router
from service.openai.chat import create_completion
from service.problems import Problem, bad_input
from service.routes.deps import TheSite, TheTurns
from service.site import Site
from service.turns import Turns

router = page_router()

ADDRESS_CHARACTERS = 4000
"""A longer question stands in no address."""
START = {"a": "", "b": "", "system": "", "prompt": "", "temperature": "0", "max_tokens": "256"}
Text = Annotated[str, Form(max_length=50_000)]


class Question(Frozen):
    """What is asked, and of whom."""

    a: str = Field(min_length=1)
    """Name of a teacher."""
    b: str | None = None
    """Of another, to compare."""
    system: str | None = None
    prompt: str = Field(min_length=1)
    temperature: float = Field(0, ge=0, le=2)
    max_tokens: int = Field(256, ge=1, le=32_768)

    def body(self, model: str) -> dict[str, Any]:
        """The request of one of them."""
        turns = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": model,
            "messages": [*turns, {"role": "user", "content": self.prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


@dataclass(frozen=True)
class Said:
    """What one of them answered, or why not."""

    model: str
    latency_s: float
    """From the question to the whole answer."""
    text: str = ""
    reasoning: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    problem: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens over the whole latency."""
        return self.completion_tokens / self.latency_s if self.completion_tokens else None


@router.get("/playground")
def show_playground(request: Request, site: TheSite) -> HTMLResponse:
    """An empty page, or the question that its address holds; asked when somebody says so."""
    given = {name: request.query_params.get(name, start) for name, start in START.items()}
    return _page(request, site, given, None, [], 200)


@router.post("/playground")
async def ask(
    request: Request,
    site: TheSite,
    turns: TheTurns,
    a: Text = "",
    b: Text = "",
    system: Text = "",
    prompt: Text = "",
    temperature: Text = "0",
    max_tokens: Text = "256",
) -> Response:
    """Ask both at once."""
    given = {
        "a": a,
        "b": b,
        "system": system,
        "prompt": prompt,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    try:
        question = _question(given)
    except Problem as problem:
        return await _answer(request, site, given, problem, [])
    models = [question.a, question.b] if question.b else [question.a]
    caller: Caller = request.state.caller
    said = await asyncio.gather(*(_ask(site, turns, caller, question, one) for one in models))
    return await _answer(request, site, given, None, said)


async def _answer(
    request: Request, site: Site, given: dict[str, str], problem: Problem | None, said: list[Said]
) -> HTMLResponse:
    """The answers alone for a script, which keeps the form; else the whole page."""
    if "hx-request" not in request.headers:
        status = problem.status if problem else 200
        return await anyio.to_thread.run_sync(_page, request, site, given, problem, said, status)
    answer = page(request, "playground_answers.html", problem=problem, said=said)
    address = f"/playground?{urlencode({name: text for name, text in given.items() if text})}"
    if len(address) <= ADDRESS_CHARACTERS:
        answer.headers["HX-Replace-Url"] = address
    return answer


def _page(
    request: Request,
    site: Site,
    given: dict[str, str],
    problem: Problem | None,
    said: list[Said],
    status: int,
) -> HTMLResponse:
    teachers = registry.listing(site)
    return page(
        request,
        "playground.html",
        status,
        teachers=teachers,
        given=given,
        problem=problem,
        said=said,
    )


def _question(given: dict[str, str]) -> Question:
    try:
        return Question.model_validate({name: text for name, text in given.items() if text.strip()})
    except ValidationError as error:
        faults = list(errors.faults(error.errors(), None))
        raise bad_input(faults, "It can't be asked like this") from error


async def _ask(site: Site, turns: Turns, caller: Caller, question: Question, model: str) -> Said:
    started = time.monotonic()
    try:
        body = question.body(model)
        response = await create_completion(site=site, turns=turns, caller=caller, body=body)
        answered = json.loads(bytes(response.body))
    except Problem as problem:
        return Said(model, time.monotonic() - started, problem=problem.detail or problem.title)
    return _read(model, time.monotonic() - started, response.status_code, answered)


def _read(model: str, latency_s: float, status: int, body: Any) -> Said:
    """A completion's parts; whatever else came is told as it is."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if status != 200 or not choices:
        error = body.get("error") if isinstance(body, dict) else None
        told = error.get("message") if isinstance(error, dict) else body
        return Said(model, latency_s, problem=f"answered {status}: {told!s:.2000}")
    message, usage = choices[0].get("message") or {}, body.get("usage") or {}
    return Said(
        model,
        latency_s,
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        finish=choices[0].get("finish_reason") or "",
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )
