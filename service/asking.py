"""One question to a teacher over the OpenAI-compatible HTTP API: one attempt, and what it means.

Who asks again, how often and how many at once is for the caller (workers/teacher.py).
"""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from prompts.plan import REFUSED, Request, Tokens
from prompts.record import Call, CallSignal, FunctionCall, ToolCall
from prompts.spec import Sampling
from prompts.tools import as_sent
from service import spans, tracing
from service.logprobs import (
    NoLogprobsError,
    read_chat_signal,
    read_prompt_signal,
    signal_parameters,
)
from service.retry_after import retry_after_s
from service.settings import Settings, secret
from service.spans import Span, SpanKind
from service.tables import Teacher
from service.vault import SealedElsewhereError, unseal

BUSY = frozenset({408, 409, 425, 429})
"""Statuses of a teacher that is there, but not now: waited out for as long as it takes."""


class TeacherError(Exception):
    """The job can't go on: `reason` is one word, the message says what to do."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason

    @property
    def pauses(self) -> bool:
        """Whether the job waits for somebody or something, and did not fail."""
        return self.reason.startswith("paused_")


class BusyError(Exception):
    """The teacher is there and asked us to come back."""

    def __init__(self, retry_after_s: float | None):
        super().__init__()
        self.retry_after_s = retry_after_s


class NoAnswerError(Exception):
    """Nothing that counts as an answer: no connection, a timeout, a 5xx, a body that isn't one."""


@dataclass(frozen=True)
class Endpoint:
    """Where a teacher is asked."""

    name: str
    base_url: str
    """Ends in /v1."""
    model: str
    key: str | None = None
    timeout_s: float = 600.0
    """Of one request, its wait in the teacher's own queue included."""

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries; each has a place of its own in the trace, if there is one."""
        key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return key | tracing.outgoing()


def find_endpoint(teacher: Teacher, settings: Settings) -> Endpoint:
    """Where a registered teacher is asked, its key fetched. Raises `TeacherError`."""
    key = _stored_key(teacher, settings) or _key_of_environment(teacher)
    base_url, timeout_s = teacher.base_url.rstrip("/"), settings.request_timeout_s
    return Endpoint(teacher.name, base_url, teacher.served_model, key, timeout_s)


def _stored_key(teacher: Teacher, settings: Settings) -> str | None:
    if teacher.api_key_sealed is None:
        return None
    try:
        return unseal(settings, teacher.api_key_sealed)
    except SealedElsewhereError as error:
        raise TeacherError("teacher_refused_key", f"teacher {teacher.name}: {error}") from error


def _key_of_environment(teacher: Teacher) -> str | None:
    name = teacher.name
    key = secret(teacher.api_key_env) if teacher.api_key_env else None
    if teacher.api_key_env and key is None:
        raise TeacherError(
            "teacher_refused_key",
            f"the key of teacher {name} is expected in the environment variable "
            f"{teacher.api_key_env}, which the workers don't have: set it and start them again",
        )
    return key


async def post(http: aiohttp.ClientSession, endpoint: Endpoint, request: Request) -> Call:
    """One attempt. A refusal for good of this one request is a `Call` too, with `error`.

    Raises `BusyError`, `NoAnswerError`, or `TeacherError` if the refusal is for the whole job.
    """
    place = "completions" if request.tokens is not None else "chat/completions"
    with spans.span(
        f"POST {place}", SpanKind.CLIENT, teacher=endpoint.name, row=request.row
    ) as span:
        return await _post(http, endpoint, request, place, span)


async def _post(
    http: aiohttp.ClientSession, endpoint: Endpoint, request: Request, place: str, span: Span | None
) -> Call:
    try:
        async with http.post(
            f"{endpoint.base_url}/{place}",
            json=_body(endpoint, request),
            headers=endpoint.headers,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
        ) as response:
            text = await response.text(errors="replace")
            if span is not None:
                span.set_attribute("http.response.status_code", response.status)
            if response.status != 200:
                return _refusal(endpoint, request, response, text)
            return _answer(endpoint, request, json.loads(text))
    except TimeoutError as error:
        raise NoAnswerError(f"no answer within {endpoint.timeout_s:.0f} s") from error
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error


def _body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    if request.tokens is not None:
        return _token_body(endpoint, request, request.tokens)
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [message.model_dump(exclude_none=True) for message in request.messages],
        **_sampling(request.sampling),
    }
    if request.tools:
        body["tools"] = as_sent(request.tools)
    if request.schema is not None:
        shape = {"name": "reply", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    if request.signal_top_k is not None:
        body |= signal_parameters(request.signal_top_k)
    return body


def _token_body(endpoint: Endpoint, request: Request, tokens: Tokens) -> dict[str, Any]:
    """A completion of token ids. Servers other than vLLM don't know `prompt_logprobs`; what they
    answer then has none."""
    body = {"model": endpoint.model, "prompt": list(tokens.ids), **_sampling(request.sampling)}
    if tokens.scored_from is not None:
        return body | {"prompt_logprobs": request.signal_top_k}
    stop = (*(request.sampling.stop or ()), *tokens.stop)
    return (
        body
        | ({"stop": list(stop)} if stop else {})
        | ({"stop_token_ids": list(tokens.stop_ids)} if tokens.stop_ids else {})
    )


def _sampling(sampling: Sampling) -> dict[str, Any]:
    """A spec's sampling as the server's parameters: what `Sampling` has is the allow-list, and
    goes under its own name but for those that the API calls otherwise."""
    given = sampling.model_dump(mode="json", exclude_none=True)
    thinking = given.pop("enable_thinking", None)
    if thinking is not None:
        given["chat_template_kwargs"] = {"enable_thinking": thinking}
    return given


def _answer(endpoint: Endpoint, request: Request, body: Any) -> Call:
    choice = body["choices"][0]
    message, usage = _message(request, choice), body.get("usage") or {}
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text=message.get("content") or "",
        tool_calls=_calls(message),
        reasoning=message.get("reasoning_content") or message.get("reasoning"),
        finish_reason=choice.get("finish_reason") or "stop",
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        signal=_signal(endpoint, request, choice),
    )


def _calls(message: dict[str, Any]) -> tuple[ToolCall, ...] | None:
    found = message.get("tool_calls") or []
    return (
        tuple(
            ToolCall(
                id=call.get("id"),
                function=FunctionCall(
                    name=call["function"]["name"],
                    arguments=call["function"].get("arguments") or "{}",
                ),
            )
            for call in found
        )
        or None
    )


def _message(request: Request, choice: dict[str, Any]) -> dict[str, Any]:
    if request.tokens is None:
        return dict(choice["message"])
    # What is scored has its words already: the one token that was written behind it is none of it.
    return {} if request.tokens.scored_from is not None else {"content": choice["text"]}


def _signal(endpoint: Endpoint, request: Request, choice: dict[str, Any]) -> CallSignal | None:
    if request.signal_top_k is None:
        return None
    tokens = request.tokens
    try:
        if tokens is not None and tokens.scored_from is not None:
            return read_prompt_signal(choice, tokens.ids, tokens.scored_from, request.signal_top_k)
        return read_chat_signal(choice, request.signal_top_k)
    except NoLogprobsError as error:
        raise TeacherError(
            "teacher_without_signal",
            f"teacher {endpoint.name} gives no signal of the {request.signal_top_k} likeliest "
            f"tokens: {error}. Build without `signal`, or serve the teacher with vLLM.",
        ) from error


def _refusal(
    endpoint: Endpoint, request: Request, response: aiohttp.ClientResponse, text: str
) -> Call:
    status, headers = response.status, response.headers
    if status in BUSY or (status == 503 and "Retry-After" in headers):
        raise BusyError(retry_after_s(headers))
    if status >= 500:
        raise NoAnswerError(f"HTTP {status}: {text[:300]}")
    if status == 404 and request.tokens is not None:
        # The model was met before: what is not there is the route.
        raise TeacherError(
            "teacher_without_completions",
            f"teacher {endpoint.name} completes no token ids ({endpoint.base_url}/completions: "
            f"HTTP 404: {text[:300]}). Serve it with vLLM.",
        )
    require_entry(endpoint, status, text)
    return refused(request, f"HTTP {status}: {text[:2000]}")


def require_entry(endpoint: Endpoint, status: int, text: str) -> None:
    """Raises `TeacherError` for the statuses that mean the whole job: key or model refused."""
    if status in (401, 403):
        raise TeacherError(
            "teacher_refused_key",
            f"teacher {endpoint.name} refused the key (HTTP {status}: {text[:300]}). Set the "
            "environment variable that its registration names for the workers, and submit again.",
        )
    if status == 404:
        raise unknown_model(endpoint, f"HTTP 404: {text[:300]}")


def unknown_model(endpoint: Endpoint, words: str) -> TeacherError:
    """The server doesn't know the model that the teacher was registered with."""
    return TeacherError(
        "teacher_unknown_model",
        f"{endpoint.base_url} knows no model {endpoint.model!r} ({words}). "
        f"Register teacher {endpoint.name} again with a name from its /v1/models.",
    )


def refused(request: Request, error: str) -> Call:
    """The call of a request that will never be answered."""
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text="",
        finish_reason=REFUSED,
        error=error,
    )
