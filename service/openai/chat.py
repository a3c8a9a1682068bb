"""/v1/chat/completions: passed on to a teacher or a served student as it stands."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import aiohttp
import anyio.to_thread
from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from service import quotas, spans
from service.asking import Endpoint, TeacherError, find_endpoint
from service.openai.errors import ERRORS
from service.openai.metering import Meter, asking_for_usage, asks_for_usage, metered
from service.openai.models import unknown
from service.openai.objects import Object
from service.passing import complete, outgoing
from service.problems import Fault, Problem, bad_input
from service.routes.deps import TheCaller, TheSite, TheTurns
from service.site import Site
from service.spans import SpanKind
from service.tables import Job, State, Teacher, now

router = APIRouter(tags=["chat"], responses=ERRORS)

EXAMPLES: dict[str, Any] = {
    "question": {
        "value": {
            "model": "demo-teacher",
            "messages": [{"role": "user", "content": "What is 2 plus 3?"}],
        }
    }
}


@router.post("/chat/completions")
async def create_completion(
    site: TheSite,
    caller: TheCaller,
    turns: TheTurns,
    body: Annotated[dict[str, Any], Body(openapi_examples=EXAMPLES)],
) -> Response:
    """A chat completion by the teacher, or by the served student, that `model` names. What the
    server refuses is passed back as it said it."""
    _check(body)
    counted = caller.key_id if caller.key and caller.key.tokens_per_day else None
    if counted is not None:
        await anyio.to_thread.run_sync(quotas.require_tokens, site, counted, now())
    endpoint, limited = await anyio.to_thread.run_sync(_endpoint, site, body["model"])
    async with AsyncExitStack() as stack:
        meter = None
        if counted is not None:
            meter = Meter()
            stack.push_async_callback(_count, site, counted, meter)
        if limited:
            await stack.enter_async_context(turns.turn(site, endpoint.name))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        try:
            if body.get("stream"):
                return await _stream(stack, http, endpoint, body, meter)
            answer = await complete(http, endpoint, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(endpoint, error) from error
        if meter is not None:
            meter.told = quotas.tokens_of(answer.body)
    _require_entry(endpoint, answer.status)
    return JSONResponse(_shaped(answer.body, answer.status), answer.status)


async def _count(site: Site, key_id: str, meter: Meter) -> None:
    with anyio.CancelScope(shield=True):  # Whoever hangs up has used its tokens all the same.
        await anyio.to_thread.run_sync(quotas.add_tokens, site, key_id, now(), meter.tokens)


async def _stream(
    stack: AsyncExitStack,
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    body: Object,
    meter: Meter | None,
) -> Response:
    shown = meter is None or asks_for_usage(body)
    with spans.span("POST chat/completions", SpanKind.CLIENT, teacher=endpoint.name) as span:
        response = await http.post(
            f"{endpoint.base_url}/chat/completions",
            json=outgoing(endpoint, body if meter is None else asking_for_usage(body)),
            headers=endpoint.headers,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_s),
        )
        if span is not None:
            span.set_attribute("http.response.status_code", response.status)
    stack.callback(response.close)
    if response.status != 200:
        _require_entry(endpoint, response.status)
        said = _shaped(_parsed(await response.text(errors="replace")), response.status)
        return JSONResponse(said, response.status)
    blocks = _blocks(response)
    return _Passed(blocks if meter is None else metered(blocks, meter, shown), stack.pop_all())


class _Passed(StreamingResponse):
    """A stream that lets go of its teacher when it has ended, however it ends: a client that is
    gone before the first block leaves an iterator that never runs."""

    def __init__(self, blocks: AsyncIterator[bytes], held: AsyncExitStack) -> None:
        # No proxy in front is to hold pieces back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(blocks, headers=headers, media_type="text/event-stream")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with self._held:
            await super().__call__(scope, receive, send)


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # The headers are out: a teacher that breaks off can only be told in the stream itself.
    try:
        async for block in response.content.iter_any():
            yield block
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        said = {"error": {"message": f"the teacher broke off: {error}", "type": "server_error"}}
        yield f"data: {json.dumps(said)}\n\n".encode()


def _check(body: Object) -> None:
    wrong = []
    if not isinstance(body.get("model"), str):
        wrong.append(Fault("model", "name a teacher or a served model; /v1/models lists them"))
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        wrong.append(Fault("messages", "must be a list of messages"))
    if wrong:
        raise bad_input(wrong)


def _endpoint(site: Site, model: str) -> tuple[Endpoint, bool]:
    """Where to ask, and whether the teacher has a limit of its own."""
    with site.sessions.reading() as session:
        teacher = session.get(Teacher, model)
        if teacher is None:
            try:
                wanted = site.store.resolve(session, model, "model").id
            except Problem as problem:
                raise unknown(model, f"{problem.detail} /v1/models lists what there is.") from None
            serving = select(Teacher).join(Job, Job.id == Teacher.serve_job_id)
            served = serving.where(Job.state == State.RUNNING)
            teacher = next(
                (t for t in session.scalars(served) if _serves(session, t, wanted)), None
            )
            if teacher is None:
                raise unknown(model, f"{wanted} is not served: retort serve {wanted}")
    try:
        return find_endpoint(teacher, site.settings), teacher.max_in_flight is not None
    except TeacherError as error:
        raise Problem(502, "teacher-refused-key", "No key for the teacher", str(error)) from error


def _serves(session: Any, teacher: Teacher, model_id: str) -> bool:
    job = session.get(Job, teacher.serve_job_id)
    return job is not None and job.spec.get("model") == model_id


def _require_entry(endpoint: Endpoint, status: int) -> None:
    if status in (401, 403):
        detail = f"teacher {endpoint.name} refused the key that is stored for it"
        raise Problem(502, "teacher-refused-key", "The teacher refused the key", detail)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shaped(said: Any, status: int) -> Any:
    """An error in OpenAI's form, whatever form the server gave it."""
    if status == 200 or (isinstance(said, dict) and isinstance(said.get("error"), dict)):
        return said
    words = said.get("message") if isinstance(said, dict) else said
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": str(words)[:2000], "type": kind, "param": None, "code": None}}


def _away(endpoint: Endpoint, error: Exception) -> Problem:
    detail = f"teacher {endpoint.name} does not answer: {type(error).__name__}: {error}"
    status = 504 if isinstance(error, TimeoutError) else 502
    return Problem(status, "teacher-unreachable", "The teacher can't be reached", detail)
