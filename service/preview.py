"""A recipe's first rows, asked for real and judged, without a job: nothing is stored but rows that
stand in the recipe, as a file."""

import asyncio
import threading
import time
from contextlib import suppress
from itertools import islice
from typing import Any

import aiohttp
from pydantic import Field

from prompts.instructions import BuildPlan, slots, with_method
from prompts.instructions.pool import make_pool
from prompts.intake import read_pool, read_seeds
from prompts.overlap import EvaluationSet
from prompts.plan import Request, Step, TeacherFacts, make_plan
from prompts.record import Call, Frozen, Message, Record, Rejected, Seed
from prompts.seeds import SeedError
from prompts.spec import AskedBuild, InstructionBuild, RescoreBuild, Shots
from prompts.spec.asked import asked_teachers
from prompts.spec.methods import SelfInstruct
from prompts.verify import VerifyError
from service import teachers
from service.asking import (
    BusyError,
    Endpoint,
    NoAnswerError,
    TeacherError,
    find_endpoint,
    post,
)
from service.evaluation import evaluation_set
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.sources import name_source, source_lines
from service.spec import BuildJob, JobSpec, RecipeJob
from service.tables import Teacher

PATIENCE_S = 60.0
"""Rows that are not answered by then are shown without their answers."""
AT_ONCE = 16


class PreviewRequest(Frozen):
    """What to look at before a job is made of it."""

    spec: JobSpec
    """A build, or a recipe with one."""
    rows: int = Field(10, ge=1, le=50)


class PreviewRow(Frozen):
    """One row as the job would have it."""

    id: str
    prompt: tuple[Message, ...]
    """The first prompt as it was rendered."""
    calls: tuple[Call, ...] = ()
    """Everything that was answered for it."""
    end: str
    """accepted, rejected, or unanswered."""
    reason: str | None = None
    detail: str = ""
    answer: str | None = None
    gold: str | None = None


class Preview(Frozen):
    """What came of it."""

    rows: tuple[PreviewRow, ...]
    seconds: float
    prompt_tokens: int
    completion_tokens: int


def preview(site: Site, wanted: PreviewRequest, patience_s: float = PATIENCE_S) -> Preview:
    """Ask the first rows. Raises problems: 422 for what can't work, with its place."""
    spec = _build(wanted.spec)
    with site.sessions.reading() as session:
        asked = [teachers.get(session, name) for name in asked_teachers(spec)]
    spec = spec.model_copy(update={"seeds": name_source(site, spec.seeds)})
    seeds = _first_seeds(site, spec, wanted.rows)
    plan, seeds = _planned(site, spec, _facts(asked, spec.teacher), seeds, _evaluation(site, spec))
    try:
        endpoints = {teacher.name: find_endpoint(teacher, site.settings) for teacher in asked}
        started = time.monotonic()
        rows = asyncio.run(_all_rows(spec, plan, endpoints, seeds, patience_s))
    except TeacherError as error:
        raise bad_input(
            [Fault("build.teacher", str(error))], "The teacher can't be asked"
        ) from error
    calls = [call for row in rows for call in row.calls]
    return Preview(
        rows=tuple(rows),
        seconds=round(time.monotonic() - started, 3),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
    )


async def _all_rows(
    spec: AskedBuild,
    plan: BuildPlan,
    endpoints: dict[str, Endpoint],
    seeds: list[Seed],
    patience_s: float,
) -> list[PreviewRow]:
    places = asyncio.Semaphore(min(AT_ONCE, spec.max_in_flight))
    async with aiohttp.ClientSession() as http:

        async def ask(request: Request) -> Call:
            endpoint = endpoints[request.teacher]
            async with places:
                call = await _ask(http, endpoint, request)
            return call.model_copy(update={"teacher": endpoint.name})

        return list(await asyncio.gather(*(_row(plan, ask, seed, patience_s) for seed in seeds)))


async def _row(plan: BuildPlan, ask: Any, seed: Seed, patience_s: float) -> PreviewRow:
    calls: list[Call] = []
    prompt: tuple[Message, ...] = ()
    try:
        async with asyncio.timeout(patience_s):
            while isinstance(step := await _next(plan, seed, calls), tuple):
                prompt = prompt or step[0].messages
                calls += await asyncio.gather(*(ask(request) for request in step))
    except (TimeoutError, NoAnswerError) as error:
        what = "verdict, or no other answer," if calls else "answer"
        detail = str(error) or f"no {what} within {patience_s:.0f} s"
        return PreviewRow(
            id=seed["id"], prompt=prompt, calls=tuple(calls), end="unanswered", detail=detail
        )
    return _ended(step, tuple(calls))


async def _next(plan: BuildPlan, seed: Seed, calls: list[Call]) -> Step:
    """The row's next step. One that may be slow is made in a thread of its own, which nobody waits
    for when the row's time is over: a user's function may never return."""
    if not plan.slow:
        return plan.next(seed, calls)
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Step] = loop.create_future()

    def make() -> None:
        try:
            step, error = plan.next(seed, calls), None
        except Exception as raised:  # noqa: BLE001 - whatever it is, the row's task raises it
            step, error = (), raised
        with suppress(RuntimeError):  # The preview is over, and so is its loop.
            loop.call_soon_threadsafe(_settle, made, step, error)

    threading.Thread(target=make, name="preview", daemon=True).start()
    return await made


def _settle(made: "asyncio.Future[Step]", step: Step, error: Exception | None) -> None:
    if made.done():
        return
    if error is None:
        made.set_result(step)
    else:
        made.set_exception(error)


def _ended(outcome: Record | Rejected, calls: tuple[Call, ...]) -> PreviewRow:
    rejected = isinstance(outcome, Rejected)
    return PreviewRow(
        id=outcome.id,
        prompt=outcome.prompt,
        calls=calls,
        end=outcome.end if isinstance(outcome, Rejected) else "accepted",
        reason=outcome.reason if isinstance(outcome, Rejected) else None,
        detail=outcome.detail if rejected and isinstance(outcome, Rejected) else "",
        answer=outcome.answer,
        gold=outcome.gold,
    )


async def _ask(http: aiohttp.ClientSession, endpoint: Endpoint, request: Request) -> Call:
    """Until it is answered; the row's own time ends it."""
    while True:
        try:
            return await post(http, endpoint, request)
        except BusyError as busy:
            await asyncio.sleep(busy.retry_after_s or 0.5)


def _build(spec: JobSpec) -> AskedBuild:
    build = spec.build if isinstance(spec, BuildJob | RecipeJob) else None
    if isinstance(build, RescoreBuild) or (build is not None and not build.takes_seeds):
        fault = "a build without prompts of its own has none to show; submit it with a `limit`"
        raise bad_input([Fault("spec.build.kind", fault)])
    if build is not None:
        return build
    raise bad_input([Fault("spec", "a preview needs a build, or a recipe with one")])


def _facts(asked: list[Teacher], name: str) -> TeacherFacts:
    first = next(teacher for teacher in asked if teacher.name == name)
    return TeacherFacts(
        name=name,
        revision=first.probe.get("revision"),
        # Its tokenizer isn't loaded here: what is too long the teacher refuses itself.
        context_tokens=first.probe.get("context_tokens"),
    )


def _planned(
    site: Site,
    spec: AskedBuild,
    facts: TeacherFacts,
    seeds: list[Seed],
    evaluation: tuple[EvaluationSet, ...],
) -> tuple[BuildPlan, list[Seed]]:
    """The plan with the build's method, and its first rows: for self-instruct those of the first
    round, which is shown the seeds' tasks."""
    method = spec.method if isinstance(spec, InstructionBuild) else None
    try:
        allowed = site.settings.allow_python_verifiers
        plan = make_plan(spec, _pool(site, spec), facts, evaluation, allow_python=allowed)
    except VerifyError as error:
        raise bad_input([Fault("build.verify", str(error))]) from error
    except ValueError as error:
        raise bad_input([Fault("build", f"it can't be previewed here: {error}")]) from error
    if not isinstance(method, SelfInstruct):
        return with_method(plan), seeds
    tasks = (seed for _, seed in read_seeds(spec, source_lines(site, spec)))
    pool = make_pool(method.rouge_l, tasks, [])
    return with_method(plan, lambda turn: pool), list(islice(slots(method), len(seeds)))


def _first_seeds(site: Site, spec: AskedBuild, rows: int) -> list[Seed]:
    try:
        found = islice(read_seeds(spec, source_lines(site, spec)), rows)
        return [seed for _, seed in found]
    except SeedError as error:
        raise bad_input([Fault("build.seeds", str(error))]) from error


def _evaluation(site: Site, spec: AskedBuild) -> tuple[EvaluationSet, ...]:
    if spec.decontaminate is None:
        return ()
    with site.sessions.reading() as session:
        try:
            file = site.store.resolve(session, spec.decontaminate, "file")
            return (evaluation_set(site.store, session, file),)
        except Problem as problem:
            raise bad_input([Fault("build.decontaminate", problem.detail)]) from problem
        except ValueError as error:  # A SeedError is one, too.
            fault = Fault("build.decontaminate", f"{file.name}: {error}")
            raise bad_input([fault]) from error


def _pool(site: Site, spec: AskedBuild) -> tuple[Seed, ...] | None:
    if not isinstance(spec, Shots) or not spec.demonstrations:
        return None
    try:
        return read_pool(spec, source_lines(site, spec, spec.pool))
    except SeedError as error:
        raise bad_input([Fault("build.pool", str(error))]) from error
