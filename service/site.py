"""One installation: settings, database, artifacts and broker, opened together and passed around."""

from dataclasses import dataclass

from service.broker import Broker
from service.db import Sessions, make_engine, sessions
from service.settings import Settings
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
    store = Store(
        settings.artifact_root,
        settings.min_free_bytes,
        settings.upload_limit_bytes,
        settings.allow_server_paths,
    )
    return Site(
        settings,
        sessions(make_engine(settings.database_url)),
        store,
        Broker(settings.broker_url),
    )
