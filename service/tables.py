"""The database: SQL holds the truth. Rows grow with jobs and chunks, never with records.

States change by compare-and-set; a write by a worker carries `epoch`, so that a zombie's matches no
row. Times are UTC, for people only: leases are judged by heartbeat counters (workers/lease.py).
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)


def utc(moment: datetime) -> datetime:
    """A stored moment with its zone: SQLite forgets it, and what is stored is UTC always."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    """Nobody works on it until it is resumed: by a person, or by its teacher's answering again."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
UNFINISHED = frozenset(State) - FINISHED


class ChunkState(StrEnum):
    """Where a chunk stands."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"


class Base(DeclarativeBase):
    """All tables of the service."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        dict[str, Any]: JSON,
        list[str]: JSON,
        datetime: DateTime(timezone=True),
    }


class Job(Base):
    """One thing a user asked for, or one part of a recipe."""

    __tablename__ = "jobs"
    # Lists are read newest first, and ids are ordered by time: with the id last an index gives a
    # page as it is, however many jobs there are.
    __table_args__ = (
        Index("ix_jobs_state_kind_id", "state", "kind", "id"),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_kind_id", "kind", "id"),
        Index("ix_jobs_key_state", "key_id", "state"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default=State.QUEUED)
    reason: Mapped[str | None] = mapped_column(String(64))
    """One word why it ended so: empty, gate, no_input, cancelled, bad_input, crashed, ..."""
    detail: Mapped[str | None] = mapped_column(Text)
    """For a person: what happened and what to do."""
    waiting_for: Mapped[str | None] = mapped_column(Text)
    """Why a queued job does not start yet."""
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    part: Mapped[str | None] = mapped_column(String(16))
    """Which part of its recipe it is: serve, build, train, compress, report."""
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    spec_sha256: Mapped[str] = mapped_column(String(64), default="")
    """Of the spec as it was submitted, before names became ids: tells a repeated submission from
    another one under the same idempotency key."""
    key_id: Mapped[str | None] = mapped_column(String(40))
    """The API key that submitted it, or whose schedule or recipe did."""
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The trace of its submission, in W3C's form; see service/tracing.py."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    """It pauses as soon as its worker has written a checkpoint."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """done, total, unit and whatever else the job counts."""
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Ids of what it published: dataset, model, models, report; figures."""
    attempts: Mapped[int] = mapped_column(default=0)
    epoch: Mapped[int] = mapped_column(default=0)
    """Goes up with each claim."""
    owner: Mapped[str | None] = mapped_column(String(200))
    heartbeat: Mapped[int] = mapped_column(BigInteger, default=0)
    """A counter that the owner moves; observers time its standing still on their own clock."""
    goal: Mapped[int | None]
    """Of a build with `target_rows`: how many rows to accept before the asking ends. Raised when
    duplicates leave too few."""
    smoke: Mapped[str | None] = mapped_column(String(16))
    """passed or overruled, once the smoke gate of a build is behind it."""
    paused_at: Mapped[datetime | None]
    paused_s: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds of the pauses that are over: they don't count for a budget of time."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Chunk(Base):
    """About 256 seeds of a build: what a worker leases."""

    __tablename__ = "chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    first_row: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int]
    offset: Mapped[int] = mapped_column(BigInteger)
    """Byte offset of its first seed in the normalised seeds file."""
    state: Mapped[str] = mapped_column(String(16), default=ChunkState.PENDING)
    epoch: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None] = mapped_column(String(200))
    heartbeat: Mapped[int] = mapped_column(BigInteger, default=0)
    accepted: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    not_needed: Mapped[int] = mapped_column(default=0)
    requests: Mapped[int] = mapped_column(default=0)
    """This and the next four: what its ledger holds."""
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    teacher_seconds: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds of its requests, added up."""
    price: Mapped[float] = mapped_column(Float, default=0.0)
    """By the prices of the registered teachers."""
    path: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))


class Event(Base):
    """What happened to a job, in order: replayed to whoever follows it."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(default=now)


class Artifact(Base):
    """A published, immutable directory or file: dataset, model, report, or uploaded file."""

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("kind", "name", "version"),
        Index("ix_artifacts_kind_id", "kind", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    """Relative to the artifact root."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file, or of the directory's manifest."""
    summary: Mapped[dict[str, Any]]
    """Counts, metrics, whatever a list shows without opening it."""
    inputs: Mapped[list[str]]
    """Ids of the artifacts it was made from: the lineage."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class PendingVerdict(Base):
    """A person's word on a row of a dataset, before a new version is made of it."""

    __tablename__ = "pending_verdicts"

    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True
    )
    row_id: Mapped[str] = mapped_column(String(600), primary_key=True)
    accept: Mapped[bool]
    note: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=now)


class Teacher(Base):
    """A registered OpenAI-compatible server. Users name it; they never give a URL."""

    __tablename__ = "teachers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    base_url: Mapped[str] = mapped_column(Text)
    """Ends in /v1."""
    served_model: Mapped[str] = mapped_column(Text)
    api_key_env: Mapped[str | None] = mapped_column(String(200))
    """Name of the environment variable that holds the key."""
    api_key_sealed: Mapped[str | None] = mapped_column(Text)
    """The key, encrypted with the installation's secret (service/vault.py); never shown again."""
    licence: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    """Directory, model id or hub name of its weights and tokenizer, where they are at hand."""
    probe: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """ok, context_tokens, max_logprobs, tokenizer_sha256, revision, latency_s, error."""
    probed_at: Mapped[datetime | None]
    serve_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    max_in_flight: Mapped[int | None]
    """Most requests under way at once, over all jobs and workers; None: each job's own limit."""
    gpus: Mapped[int | None]
    """How many its server has: what a budget of GPU seconds is counted by."""
    price_prompt: Mapped[float | None] = mapped_column(Float)
    """Of a million prompt tokens."""
    price_completion: Mapped[float | None] = mapped_column(Float)
    """Of a million completion tokens."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ApiKey(Base):
    """A key that programs, or people through the dashboard, show to be let in."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    """For whom or what it is."""
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the key, which is random and long enough that its digest tells nothing; the key itself is
    stored nowhere."""
    scopes: Mapped[list[str]]
    """read, submit, train, admin."""
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    """This and the next two: see `service.quotas.Limits`."""
    jobs_at_once: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    bucket_full_at: Mapped[datetime | None]
    """When its requests of a minute would all be there again."""
    chat_day: Mapped[str | None] = mapped_column(String(10))
    """The day, UTC, that `chat_tokens` are of."""
    chat_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class UsedLink(Base):
    """A login link that was opened: none is good twice."""

    __tablename__ = "used_links"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    used_at: Mapped[datetime] = mapped_column(default=now)


class JobTeacher(Base):
    """Who a build's teacher was when the build began: one that was swapped is not asked on."""

    __tablename__ = "job_teachers"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    teacher: Mapped[str] = mapped_column(String(200), primary_key=True)
    identity: Mapped[dict[str, Any]]
    """See `service.identity.Identity`."""


class Grant(Base):
    """A party's part of a teacher with a limit of its own; see service/shares.py."""

    __tablename__ = "grants"

    teacher: Mapped[str] = mapped_column(String(200), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40))
    wanted: Mapped[int]
    """What its job could use in all."""
    granted: Mapped[int]
    until: Mapped[datetime | None]
    """Of a party that holds no lease: when it ends unless it is renewed."""


class RunState(StrEnum):
    """What became of a slot."""

    WAITING = "waiting"
    """Claimed; its job is not submitted yet."""
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    FAILED = "failed"
    """Its job was refused; `detail` says why."""


class Schedule(Base):
    """A job that runs by cron; see service/timetable.py."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    cron: Mapped[str] = mapped_column(String(200))
    time_zone: Mapped[str] = mapped_column(String(100))
    spec: Mapped[dict[str, Any]]
    """Of the job, with its names as they were given."""
    overlap: Mapped[str] = mapped_column(String(16))
    missed: Mapped[str] = mapped_column(String(16))
    incremental: Mapped[bool]
    key_id: Mapped[str | None] = mapped_column(String(40))
    """The API key that made it: its limits hold for the runs."""
    paused: Mapped[bool] = mapped_column(default=False)
    next_at: Mapped[datetime] = mapped_column(index=True)
    """The first slot that nobody has claimed."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Run(Base):
    """A slot of a schedule, claimed by this row's insert."""

    __tablename__ = "schedule_runs"
    __table_args__ = (UniqueConstraint("schedule_id", "slot_utc"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    slot_utc: Mapped[datetime]
    """When it was due; when it was asked for, if by hand."""
    state: Mapped[str] = mapped_column(String(16), index=True)
    by_hand: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    detail: Mapped[str | None] = mapped_column(Text)
    """Why it was skipped or failed."""


class Reply(Base):
    """What a request with an Idempotency-Key was answered, to be answered again."""

    __tablename__ = "replies"

    key_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the caller's credentials and the key."""
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    """None while the first request is under way."""
    headers: Mapped[dict[str, Any]]
    body: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
