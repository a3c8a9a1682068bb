"""One installation: settings, database, artifacts and broker, opened together and passed around."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from service.broker import Broker
from service.db import Sessions, make_engine, sessions
from service.settings import Settings
from service.shared import Directory, Shared
from service.store import Store


@dataclass(frozen=True)
class Site:
    """What every service function of more than one transaction needs."""

    settings: Settings
    sessions: Sessions
    store: Store
    broker: Broker


def open_site(settings: Settings) -> Site:
    """Open an installation. Connects to nothing yet; `db.upgrade(site.sessions.engine)` makes the
    tables. Open one per process: connections must not cross a fork."""
    root, shared = open_root(settings)
    store = Store(
        root,
        settings.min_free_bytes,
        settings.upload_limit_bytes,
        settings.allow_server_paths,
        shared,
    )
    return Site(
        settings,
        sessions(make_engine(settings.database_url)),
        store,
        Broker(settings.broker_url),
    )


def open_root(settings: Settings) -> tuple[Path, Shared]:
    """The directory of the artifact root, or its mirror here, and how all hosts share it. Connects
    to nothing yet."""
    if isinstance(settings.artifact_root, Path):
        return settings.artifact_root, Directory()
    # Late: it takes a second, and few installations have it.
    from service.bucket import Bucket

    url = settings.artifact_root
    mirror = settings.data_dir / "mirror" / hashlib.sha256(url.encode()).hexdigest()[:12]
    return mirror, Bucket(url, mirror, settings.min_free_bytes)
