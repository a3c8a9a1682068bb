"""What a key may do at most: requests a minute, unfinished jobs at once, tokens of teachers a day.

Limits and what was used of them stand in SQL, so all API processes count together. A key without a
limit costs nothing extra; one with a limit on requests costs one write for each.
"""

from datetime import datetime, timedelta
from typing import Any

from pydantic import Field
from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service.problems import too_many
from service.site import Site
from service.spec import JobSpec
from service.tables import UNFINISHED, ApiKey, Chunk, Job, utc

MINUTE = timedelta(minutes=1)
JOB_WAIT_S = 30
"""When to ask again for a job's place; nobody knows when one ends."""
MOST = 2**53


class Limits(Frozen):
    """A key's limits; null: none."""

    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    """Under /api/v1 and /v1. So many may come at once; they are given back evenly over a minute."""
    jobs_at_once: int | None = Field(None, ge=1, le=1_000_000)
    """Jobs that were submitted and have not ended; a recipe counts once."""
    tokens_per_day: int | None = Field(None, ge=1, le=MOST)
    """Prompt and completion tokens of teachers. When they are spent, no chat and no job that asks a
    teacher is taken until midnight UTC; what is under way goes on."""


class Usage(Frozen):
    """What a key has used."""

    open_jobs: int
    tokens_today: int
    """Of builds and batches that were submitted today (UTC), and of chats while a limit held."""


def take_request(site: Site, key_id: str, at: datetime) -> None:
    """Count a request. Raises a 429 problem beyond the key's requests per minute."""
    with site.sessions.writing.begin() as session:
        key = session.get_one(ApiKey, key_id, with_for_update=True)
        if key.requests_per_minute is None:
            return
        step = MINUTE / key.requests_per_minute
        # A bucket of a minute's requests, as the moment at which it would be full again.
        full_at = max(utc(key.bucket_full_at or at), at) + step
        if full_at - at > MINUTE:
            wait_s = (full_at - at - MINUTE).total_seconds()
            detail = f"This key may send {key.requests_per_minute:,} requests a minute."
            raise too_many("rate-limited", "Too many requests", detail, wait_s)
        key.bucket_full_at = full_at


def check_submit(session: Session, key_id: str, spec: JobSpec, at: datetime) -> None:
    """Raise a 429 problem if the key may not submit this job now. The key's row stays locked until
    the caller commits: two submissions don't take the same last place."""
    key = session.get_one(ApiKey, key_id, with_for_update=True)
    if key.jobs_at_once is not None and open_jobs(session, key_id) >= key.jobs_at_once:
        detail = f"This key may have {key.jobs_at_once:,} unfinished jobs; wait for one, or cancel."
        raise too_many("too-many-jobs", "Too many jobs", detail, JOB_WAIT_S)
    if _asks_a_teacher(spec):
        _require_tokens(session, key, at)


def require_tokens(site: Site, key_id: str, at: datetime) -> None:
    """Raise a 429 problem if the key's tokens of this day are spent."""
    with site.sessions.reading() as session:
        _require_tokens(session, session.get_one(ApiKey, key_id), at)


def add_tokens(site: Site, key_id: str, at: datetime, tokens: int) -> None:
    """Count what a chat took."""
    today = _day(at)
    so_far = case((ApiKey.chat_day == today, ApiKey.chat_tokens), else_=0)
    with site.sessions.writing.begin() as session:
        session.execute(
            update(ApiKey)
            .where(ApiKey.id == key_id)
            .values(chat_day=today, chat_tokens=so_far + tokens)
        )


def usage(session: Session, key: ApiKey, at: datetime) -> Usage:
    """What a key has used."""
    return Usage(open_jobs=open_jobs(session, key.id), tokens_today=_tokens(session, key, at))


def tokens_of(said: Any) -> int:
    """Prompt and completion tokens that a chat's answer tells of; 0 where it doesn't."""
    told = said.get("usage") if isinstance(said, dict) else None
    if not isinstance(told, dict):
        return 0
    counts: list[Any] = [told.get(f"{part}_tokens") for part in ("prompt", "completion")]
    return sum(int(count) for count in counts if isinstance(count, int))


def _require_tokens(session: Session, key: ApiKey, at: datetime) -> None:
    if key.tokens_per_day is None or _tokens(session, key, at) < key.tokens_per_day:
        return
    detail = f"This key may use {key.tokens_per_day:,} tokens a day (UTC), and they are spent."
    wait_s = (_midnight(at) + timedelta(days=1) - at).total_seconds()
    raise too_many("tokens-spent", "The day's tokens are spent", detail, wait_s)


def _tokens(session: Session, key: ApiKey, at: datetime) -> int:
    of_today = (Job.key_id == key.id) & (Job.created_at >= _midnight(at))
    built = select(func.sum(Chunk.prompt_tokens + Chunk.completion_tokens))
    builds = session.scalar(built.join(Job, Job.id == Chunk.job_id).where(of_today)) or 0
    batches = session.scalars(select(Job.progress).where(of_today, Job.kind == "batch"))
    chats = key.chat_tokens if key.chat_day == _day(at) else 0
    return int(builds) + sum(int(progress.get("tokens", 0)) for progress in batches) + chats


def open_jobs(session: Session, key_id: str) -> int:
    """How many jobs of a key have not ended; parts of a recipe count with it."""
    mine = (Job.key_id == key_id) & Job.parent_id.is_(None) & Job.state.in_(UNFINISHED)
    return session.scalar(select(func.count()).select_from(Job).where(mine)) or 0


def _asks_a_teacher(spec: JobSpec) -> bool:
    return spec.kind in ("build", "batch") or (spec.kind == "recipe" and spec.build is not None)


def _midnight(at: datetime) -> datetime:
    return utc(at).replace(hour=0, minute=0, second=0, microsecond=0)


def _day(at: datetime) -> str:
    return f"{utc(at):%Y-%m-%d}"
