"""How rows look from outside: what the API answers with."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from service.quotas import Usage
from service.tables import ApiKey, Artifact, Event, Job, Run, Schedule, Teacher, utc

Moment = Annotated[datetime, AfterValidator(utc)]


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class JobView(_View):
    """A job as lists show it."""

    id: str
    kind: str
    name: str
    state: str
    """queued, running, paused, succeeded, failed or cancelled."""
    reason: str | None
    """One word why it ended so."""
    detail: str | None
    """What happened and what to do."""
    waiting_for: str | None
    parent_id: str | None
    part: str | None
    cancel_requested: bool
    pause_requested: bool
    """A training or compression that pauses once its checkpoint is written."""
    progress: dict[str, Any]
    result: dict[str, Any]
    attempts: int
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    paused_s: float
    """Seconds of its pauses that are over."""


class JobDetail(JobView):
    """A job with its spec and, for a recipe, its parts."""

    spec: dict[str, Any]
    children: list[JobView]
    schedule_id: str | None = None
    """The schedule that it is a run of."""
    report_id: str | None = None
    """The report that it drew, or the newest one that tells of it."""


class JobPage(_View):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: str | None
    """Give it as `cursor` for the next page; null on the last."""


class EventView(_View):
    """Something that happened to a job."""

    id: int
    job_id: str
    type: str
    data: dict[str, Any]
    at: Moment


class ArtifactView(_View):
    """A dataset, model, report or uploaded file."""

    id: str
    kind: str
    name: str
    version: int
    bytes: int
    sha256: str
    summary: dict[str, Any]
    inputs: list[str]
    """Ids of what it was made from."""
    job_id: str | None
    created_at: Moment
    location: str
    """Where it lies on the server."""


class ArtifactPage(_View):
    """A page of artifacts, newest first."""

    artifacts: list[ArtifactView]
    next: str | None


class TeacherView(_View):
    """A registered teacher."""

    name: str
    base_url: str
    served_model: str
    api_key_env: str | None
    has_key: bool = False
    """Whether a key is stored for it; the key itself is never shown."""
    licence: str | None
    model: str | None
    probe: dict[str, Any]
    """ok, context_tokens, max_logprobs, tokenizer_sha256, revision, latency_s, error."""
    probed_at: Moment | None
    serve_job_id: str | None
    max_in_flight: int | None
    """Over all jobs and workers."""
    gpus: int | None
    price_prompt: float | None
    """Of a million tokens."""
    price_completion: float | None


class TeacherPage(_View):
    """A page of teachers, by name."""

    teachers: list[TeacherView]
    next: str | None


class KeyView(_View):
    """An API key, without the key."""

    id: str
    name: str
    scopes: list[str]
    requests_per_minute: int | None
    """This and the next two: its limits; null where there is none."""
    jobs_at_once: int | None
    tokens_per_day: int | None
    created_at: Moment
    last_used_at: Moment | None
    revoked_at: Moment | None


class KeyDetail(KeyView):
    """An API key with what it has used."""

    open_jobs: int
    tokens_today: int
    """Of builds and batches that were submitted today (UTC), and of chats while a limit held."""


class KeyPage(_View):
    """A page of keys, newest first."""

    keys: list[KeyView]
    next: str | None


class MadeKey(KeyView):
    """A key that was just made."""

    key: str
    """Shown this once."""


def key_view(key: ApiKey) -> KeyView:
    """A row for a list."""
    return KeyView.model_validate(key)


def key_detail(key: ApiKey, used: Usage) -> KeyDetail:
    """A row, with what it has used."""
    return KeyDetail(**key_view(key).model_dump(), **used.model_dump())


def made_key(key: ApiKey, token: str) -> MadeKey:
    """A row with the key itself, for whoever made it."""
    return MadeKey(**key_view(key).model_dump(), key=token)


def job_view(job: Job) -> JobView:
    """A row for a list."""
    return JobView.model_validate(job)


def job_detail(
    job: Job, children: list[Job], schedule_id: str | None = None, report_id: str | None = None
) -> JobDetail:
    """A row in full."""
    fields = JobView.model_validate(job).model_dump()
    parts = [job_view(child) for child in children]
    ids = {"schedule_id": schedule_id, "report_id": job.result.get("report") or report_id}
    return JobDetail(**fields, spec=job.spec, children=parts, **ids)


def artifact_view(artifact: Artifact, location: str) -> ArtifactView:
    """A row, with the place where it lies."""
    fields = {
        name: artifact.__dict__[name] for name in ArtifactView.model_fields if name != "location"
    }
    return ArtifactView(**fields, location=location)


def teacher_view(teacher: Teacher) -> TeacherView:
    """A row; the key itself is nowhere in it."""
    has_key = teacher.api_key_sealed is not None
    return TeacherView.model_validate(teacher).model_copy(update={"has_key": has_key})


def event_view(event: Event) -> EventView:
    """A row."""
    return EventView.model_validate(event)


class RunView(_View):
    """What became of a slot of a schedule."""

    id: int
    slot_utc: Moment
    state: str
    """waiting, submitted, skipped or failed."""
    by_hand: bool
    job_id: str | None
    detail: str | None


class RunPage(_View):
    """A page of runs, newest first."""

    runs: list[RunView]
    next: str | None


class ScheduleView(_View):
    """A schedule as lists show it."""

    id: str
    name: str
    cron: str
    time_zone: str
    spec: dict[str, Any]
    """Of the job that it submits."""
    overlap: str
    missed: str
    incremental: bool
    paused: bool
    created_at: Moment
    coming: list[Moment] = []
    """The next five slots; none while it is paused."""


class ScheduleDetail(ScheduleView):
    """A schedule with its newest runs."""

    runs: list[RunView]


class SchedulePage(_View):
    """A page of schedules, newest first."""

    schedules: list[ScheduleView]
    next: str | None


def run_view(run: Run) -> RunView:
    """A row."""
    return RunView.model_validate(run)


def schedule_view(schedule: Schedule, coming: list[datetime]) -> ScheduleView:
    """A row, with its next slots."""
    return ScheduleView.model_validate(schedule).model_copy(update={"coming": coming})


def schedule_detail(schedule: Schedule, coming: list[datetime], runs: list[Run]) -> ScheduleDetail:
    """A row in full."""
    fields = schedule_view(schedule, coming).model_dump()
    return ScheduleDetail(**fields, runs=[run_view(run) for run in runs])
