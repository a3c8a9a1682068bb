"""What a job will ask for and how long that takes, as far as seeds and earlier jobs tell."""

import math
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from prompts.checks.judge import judges_of
from prompts.spec import AskedBuild, CotBuild, InstructionBuild, RescoreBuild
from service.dashboard import words
from service.preview import Preview
from service.site import Site
from service.spec import BuildJob, JobSpec, RecipeJob, TrainJob
from service.tables import Artifact, Chunk, Job, State

LOOKED_AT = 100
"""Newest finished builds among which the teacher's are looked for."""
BUILDS = 5


@dataclass(frozen=True)
class Habit:
    """How a teacher's last builds went, over all of them."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """From their starts to their ends, pauses aside."""


def estimate(site: Site, spec: JobSpec) -> str:
    """In words; nothing where nothing can be told."""
    with site.sessions.reading() as session:
        if isinstance(spec, TrainJob):
            return _training(session, spec)
        asked = _asked(session, spec)
        if asked is None:
            return ""
        build, rows, requests = asked
        return _build(build, rows, requests, habit(session, build))


def from_preview(site: Site, spec: JobSpec, found: Preview) -> str:
    """What all seeds will take if they are as the previewed ones were; nothing where their number
    isn't known."""
    answered = [row for row in found.rows if row.calls]
    with site.sessions.reading() as session:
        asked = _asked(session, spec)
    if asked is None or not answered:
        return ""
    _, rows, _ = asked
    share = rows / len(answered)
    requests = sum(len(row.calls) for row in answered) * share
    return (
        f"If all {rows:,} seeds are as these: about {round(requests):,} requests, "
        f"{round(found.prompt_tokens * share):,} prompt and "
        f"{round(found.completion_tokens * share):,} completion tokens, and "
        f"{words.duration(found.seconds * share)} with {len(answered)} rows at a time."
    )


def habit(session: Session, build: AskedBuild) -> Habit | None:
    """Of the last builds that asked this build's teacher and no other; None where there is none."""
    query = select(Job).where(Job.kind == "build", Job.state == State.SUCCEEDED)
    newest = session.scalars(query.order_by(Job.id.desc()).limit(LOOKED_AT))
    mine = [job for job in newest if _asks_only(job, build.teacher)][:BUILDS]
    if not mine or build.teachers:
        return None
    sums = (Chunk.requests, Chunk.prompt_tokens, Chunk.completion_tokens)
    spent = select(*(func.coalesce(func.sum(one), 0) for one in sums))
    found = session.execute(spent.where(Chunk.job_id.in_([job.id for job in mine]))).one()
    seconds = sum(_seconds(job) for job in mine)
    if not found[0] or seconds <= 0:
        return None
    return Habit(int(found[0]), int(found[1]), int(found[2]), seconds)


def _asks_only(job: Job, teacher: str) -> bool:
    build = job.spec.get("build", {})
    return build.get("teacher") == teacher and not build.get("teachers")


def _seconds(job: Job) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds() - job.paused_s


def _asked(session: Session, spec: JobSpec) -> tuple[AskedBuild, int, int] | None:
    """The build, its seeds and the fewest requests that they take; None where their number isn't
    known."""
    build = spec.build if isinstance(spec, BuildJob | RecipeJob) else None
    if build is None or isinstance(build, RescoreBuild) or not isinstance(build.seeds, str):
        return None
    seeds = session.get(Artifact, build.seeds)
    rows = (seeds.summary.get("rows") or seeds.summary.get("accepted")) if seeds else None
    if not isinstance(rows, int):
        return None
    asked = min(rows, build.limit or rows)
    return build, asked, asked * (build.samples if isinstance(build, CotBuild) else 1)


def _build(build: AskedBuild, rows: int, requests: int, known: Habit | None) -> str:
    least = "at least " if _asks_more(build) else ""
    most = requests * build.sampling.max_tokens
    begin = f"{rows:,} seeds: {least}{requests:,} requests, "
    if known is None:
        return (
            f"{begin}at most {most:,} completion tokens. How long it takes, no earlier build "
            "with this teacher tells: preview ten rows."
        )
    share = requests / known.requests
    return (
        f"{begin}about {round(known.prompt_tokens * share):,} prompt and "
        f"{min(most, round(known.completion_tokens * share)):,} completion tokens (at most "
        f"{most:,}), about {words.duration(known.seconds * share)}, as the last builds with "
        f"{build.teacher} went."
    )


def _asks_more(build: AskedBuild) -> bool:
    """Whether rows may take more requests than their samples."""
    writes = isinstance(build, InstructionBuild) and build.method.kind != "respond"
    hints = isinstance(build, CotBuild) and build.rationalise is not None
    return writes or hints or bool(judges_of(build.checks))


def _training(session: Session, spec: TrainJob) -> str:
    dataset = session.get(Artifact, spec.train.dataset) if spec.train.dataset else None
    rows = (dataset.summary.get("splits") or {}).get("train") if dataset else None
    if not isinstance(rows, int) or not rows:
        return ""
    chosen = spec.train.optimization
    each = math.ceil(rows / (chosen.batch_size * chosen.accumulation))
    steps = chosen.max_steps or math.ceil(each * chosen.epochs)
    return f"At most {rows:,} rows, {steps:,} steps{_pace(session, spec, steps)}."


def _pace(session: Session, spec: TrainJob, steps: int) -> str:
    """How long that took before, with the same student and method."""
    query = select(Job).where(Job.kind == "train", Job.state == State.SUCCEEDED)
    for job in session.scalars(query.order_by(Job.id.desc()).limit(LOOKED_AT)):
        made, train = job.progress.get("total"), job.spec["train"]
        same = (train["student"], train["method"]) == (spec.train.student, spec.train.method)
        if same and made and _seconds(job) > 0:
            lasts = words.duration(_seconds(job) / made * steps)
            return f", about {lasts} at the pace of {job.id}"
    return ""
