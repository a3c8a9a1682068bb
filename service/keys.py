"""API keys: shown once when made, stored as digests, each with the scopes it may use."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import Field
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service.ids import make_id
from service.problems import not_found
from service.quotas import Limits
from service.site import Site
from service.tables import ApiKey, now

Scope = Literal["read", "submit", "train", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "train", "admin")

TOKEN_BYTES = 32
NOTE_USE_EVERY = timedelta(minutes=1)
"""How exactly `last_used_at` is kept: each request would be a write otherwise."""


class NewKey(Frozen):
    """A key as somebody asks for it."""

    name: str = Field(min_length=1, max_length=200)
    """For whom or what it is."""
    scopes: tuple[Scope, ...] = Field(("read", "submit"), min_length=1)
    """read: look at everything. submit: uploads, builds and reports, and their control. train: the
    jobs that take the device. admin: teachers, keys, and all the rest."""
    limits: Limits = Limits()
    """What it may do at most."""


def create(site: Site, wanted: NewKey) -> tuple[ApiKey, str]:
    """Make a key. The second of the pair is the key itself: nobody can show it again."""
    token = f"retort_{secrets.token_urlsafe(TOKEN_BYTES)}"
    ordered: list[str] = [scope for scope in SCOPES if scope in wanted.scopes]
    key = ApiKey(
        id=make_id("key"),
        name=wanted.name,
        sha256=digest(token),
        scopes=ordered,
        **wanted.limits.model_dump(),
    )
    with site.sessions.writing.begin() as session:
        session.add(key)
    return key, token


def listing(site: Site, before: str | None = None, limit: int | None = None) -> list[ApiKey]:
    """Keys, newest first, revoked ones too; `before` is the last id of the page before this one."""
    query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    with site.sessions.reading() as session:
        return list(session.scalars(query.where(ApiKey.id < before) if before else query))


def get(session: Session, key_id: str) -> ApiKey:
    """A key by id, revoked or not. Raises a 404 problem."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise not_found("key", key_id, list(session.scalars(select(ApiKey.id))))
    return key


def limit(site: Site, key_id: str, wanted: Limits) -> ApiKey:
    """Set the limits that are given; null lifts one. Raises a 404 problem."""
    with site.sessions.writing.begin() as session:
        key = get(session, key_id)
        values = wanted.model_dump(exclude_unset=True)
        if values:
            session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**values))
            session.refresh(key)
        return key


def revoke(site: Site, key_id: str) -> ApiKey:
    """Make a key useless from now on. Raises a 404 problem; a revoked one is left as it is."""
    with site.sessions.writing.begin() as session:
        key = get(session, key_id)
        key.revoked_at = key.revoked_at or now()
        return key


def any_made(session: Session) -> bool:
    """Whether this installation ever had a key. Revoking the last one doesn't open it again."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def by_token(session: Session, token: str) -> ApiKey | None:
    """The key that was shown; None for an unknown or revoked one."""
    found = session.scalar(select(ApiKey).where(ApiKey.sha256 == digest(token)))
    return found if found is not None and found.revoked_at is None else None


def by_id(session: Session, key_id: str) -> ApiKey | None:
    """A key that still holds."""
    found = session.get(ApiKey, key_id)
    return found if found is not None and found.revoked_at is None else None


def note_use(site: Site, key: ApiKey) -> None:
    """Remember that a key was used, to the minute."""
    used_at = key.last_used_at
    if used_at is not None and now() - _utc(used_at) < NOTE_USE_EVERY:
        return
    with site.sessions.writing.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key.id).values(last_used_at=now()))


def digest(token: str) -> str:
    """What is stored of a key. A plain hash: there is nothing to guess in 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def _utc(value: datetime) -> datetime:
    # SQLite forgets the zone.
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value
