"""A recipe's chain: serve -> build -> train -> compress -> report, each a job of its own.

`next_step` decides, from the rows alone; `advance` does it. Both may run any number of times, from
anywhere: children are submitted under the key `<recipe>/<part>`, ends are compare-and-set.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update

from service import events, jobs, tracing
from service.problems import Problem
from service.shared import StorageAwayError, StorageError
from service.site import Site
from service.spec import (
    BuildJob,
    CompressJob,
    JobSpec,
    RecipeJob,
    ReportJob,
    TrainJob,
)
from service.tables import FINISHED, Job, State, now

log = logging.getLogger(__name__)

PARTS = ("build", "train", "compress", "report")
RESULTS = ("dataset", "accepted", "model", "models", "reports", "report")
"""What a recipe takes over from its parts' results."""


@dataclass(frozen=True)
class Submit:
    """Submit the next part."""

    part: str
    spec: JobSpec


@dataclass(frozen=True)
class Stop:
    """Cancel these jobs, then look again."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True)
class End:
    """The recipe is over."""

    state: State
    reason: str | None = None
    detail: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Nothing to do until a part moves."""


Step = Submit | Stop | End | Wait


def advance(site: Site, recipe_id: str) -> None:
    """Take a recipe as far as it goes now. Idempotent; call it whenever a part has moved."""
    while _take_step(site, recipe_id):
        pass


def next_step(recipe: RecipeJob, parent: Job, parts: Mapping[str, Job]) -> Step:
    """What a recipe needs next; `parts` are its children by part. Pure."""
    if parent.state in FINISHED:
        return Wait()
    ending = _ending(recipe, parent, parts)
    if ending is not None:
        return _stop(parts.values()) or ending
    serve = parts.get("serve")
    if recipe.serve is not None and serve is None:
        return Submit("serve", recipe.serve)
    if serve is not None and serve.state not in FINISHED:
        if _ended(parts.get("build")):
            # The teacher gives the device back before the student takes it.
            return _stop([serve]) or Wait()
        if serve.state != State.RUNNING or not serve.progress.get("ready"):
            return Wait()
    for part in _wanted(recipe):
        if part not in parts:
            return Submit(part, _spec(part, recipe, parent, parts))
        if not _ended(parts[part]):
            return Wait()
    return End(State.SUCCEEDED, reason=_first_reason(parts), result=_result(parts))


def _take_step(site: Site, recipe_id: str) -> bool:
    with site.sessions.reading() as session:
        parent = jobs.get(session, recipe_id)
        parts = {child.part or "": child for child in jobs.children(session, recipe_id)}
    recipe = jobs.spec_of(parent)
    if not isinstance(recipe, RecipeJob):
        return False
    match next_step(recipe, parent, parts):
        case Submit(part, spec):
            return _submit(site, parent, part, spec)
        case Stop(job_ids):
            for job_id in job_ids:
                jobs.cancel(site, job_id)
            # A queued part ends by that at once, and the chain may go on.
            return True
        case End() as end:
            _end(site, parent, end)
    return False


def _submit(site: Site, parent: Job, part: str, spec: JobSpec) -> bool:
    _start(site, parent)
    try:
        with tracing.under(tracing.parsed(parent.traceparent)):
            jobs.submit(
                site,
                spec,
                idempotency_key=f"{parent.id}/{part}",
                parent_id=parent.id,
                part=part,
                by=parent.key_id,
            )
    except Problem as problem:
        _end(site, parent, End(State.FAILED, "bad_input", f"{part}: {problem.detail}"))
        return False
    except StorageAwayError as error:
        log.warning("%s: %s is submitted at a later tick: %s", parent.id, part, error)
        return False
    except StorageError as error:
        _end(site, parent, End(State.FAILED, "storage", f"{part}: {error}"))
        return False
    return True


def _start(site: Site, parent: Job) -> None:
    if parent.state != State.QUEUED:
        return
    with site.sessions.writing.begin() as session:
        started = session.execute(
            update(Job)
            .where(Job.id == parent.id, Job.state == State.QUEUED)
            .values(state=State.RUNNING, started_at=now())
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).first()
        if started is not None:
            events.emit(session, parent.id, events.STATE, {"state": State.RUNNING})


def _end(site: Site, parent: Job, end: End) -> None:
    with site.sessions.writing.begin() as session:
        jobs.finish(
            session,
            parent.id,
            parent.epoch,
            end.state,
            reason=end.reason,
            detail=end.detail,
            result=dict(end.result),
        )


def _ending(recipe: RecipeJob, parent: Job, parts: Mapping[str, Job]) -> End | None:
    """Why the chain can't go on; None while it can."""
    result = _result(parts)
    if parent.cancel_requested:
        return End(State.CANCELLED, "cancelled", None, result)
    serve, build = parts.get("serve"), parts.get("build")
    if serve is not None and _lost_teacher(serve, build):
        return _because(serve, result)
    for part in _wanted(recipe):
        child = parts.get(part)
        if child is None or child.state not in (State.FAILED, State.CANCELLED):
            continue
        gated = part == "compress" and child.reason == "gate"
        if gated and not _reported(recipe, parts):
            return None  # A closed gate is a finding: the report tells of it before the chain ends.
        return _because(child, result)
    if build is not None and _ended(build) and build.reason == "empty" and _uses_rows(recipe):
        detail = f"build {build.id} accepted no row; there is nothing to train on. See its rejects."
        return End(State.FAILED, "empty", detail, result)
    return None


def _lost_teacher(serve: Job, build: Job | None) -> bool:
    """Whether the teacher ended before the build was done with it."""
    if serve.state not in FINISHED or (build is not None and build.state == State.SUCCEEDED):
        return False
    return serve.state == State.FAILED or not _ended(build)


def _because(child: Job, result: Mapping[str, Any]) -> End:
    if child.state == State.CANCELLED:
        return End(State.CANCELLED, "cancelled", f"{child.part} {child.id} was cancelled", result)
    detail = child.detail or child.reason or f"ended as {child.state} before it was done with"
    return End(
        State.FAILED, child.reason or "part_ended", f"{child.part} {child.id}: {detail}", result
    )


def _stop(family: Iterable[Job]) -> Stop | Wait | None:
    alive = [job for job in family if job.state not in FINISHED]
    untold = tuple(job.id for job in alive if not job.cancel_requested)
    if untold:
        return Stop(untold)
    return Wait() if alive else None


def _spec(part: str, recipe: RecipeJob, parent: Job, parts: Mapping[str, Job]) -> JobSpec:
    """The part's spec, its missing inputs taken from what the parts before it published."""
    dataset = parts["build"].result.get("dataset") if "build" in parts else None
    if part == "build" and recipe.build is not None:
        return BuildJob(kind="build", build=recipe.build)
    if part == "train" and recipe.train is not None:
        train = recipe.train.model_copy(update={"dataset": recipe.train.dataset or dataset})
        return TrainJob(kind="train", train=train, evaluate=recipe.evaluate)
    if part == "compress" and recipe.compress is not None:
        trained = parts["train"].result.get("model") if "train" in parts else None
        used = recipe.train.dataset if recipe.train is not None else None
        filled = {
            "model": recipe.compress.model or trained,
            "dataset": recipe.compress.dataset or dataset or used,
            "evaluate": recipe.compress.evaluate or recipe.evaluate,
        }
        compress = recipe.compress.model_copy(update=filled)
        return CompressJob(kind="compress", compress=compress)
    return ReportJob(kind="report", job=parent.id, evaluate=recipe.evaluate)


def _wanted(recipe: RecipeJob) -> list[str]:
    wanted = {
        "build": recipe.build is not None,
        "train": recipe.train is not None,
        "compress": recipe.compress is not None,
        "report": recipe.report,
    }
    return [part for part in PARTS if wanted[part]]


def _uses_rows(recipe: RecipeJob) -> bool:
    trains = recipe.train is not None and recipe.train.dataset is None
    return trains or (recipe.compress is not None and recipe.compress.dataset is None)


def _reported(recipe: RecipeJob, parts: Mapping[str, Job]) -> bool:
    return not recipe.report or _ended(parts.get("report"))


def _ended(job: Job | None) -> bool:
    return job is not None and job.state in FINISHED


def _first_reason(parts: Mapping[str, Job]) -> str | None:
    reasons = (parts[part].reason for part in PARTS if part in parts)
    return next((reason for reason in reasons if reason is not None), None)


def _result(parts: Mapping[str, Job]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in PARTS:
        if part in parts:
            found = parts[part].result
            merged |= {key: found[key] for key in RESULTS if key in found}
    return merged
