"""The database: SQLite by default, PostgreSQL by URL.

SQLite runs with a write-ahead log: readers wait for nobody, a commit is one fsync. Before 3.51.3 it
could lose commits that way; where there is nothing newer it runs with the rollback journal.
synchronous=FULL, and every writing transaction opens with BEGIN IMMEDIATE: a writer waits at its
start, never fails half-way with a lock that it can't upgrade.
"""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker

try:
    from pysqlite3 import dbapi2 as sqlite
except ImportError:  # There is no wheel for every machine.
    import sqlite3 as sqlite

JOURNAL = "wal" if sqlite.sqlite_version_info >= (3, 51, 3) else "delete"
BUSY_TIMEOUT_S = 60
MIGRATION_LOCK = 0x5265746F7274
"""Any number, the same for all: the advisory lock that migrations take on PostgreSQL."""


@dataclass(frozen=True)
class Sessions:
    """Two ways to open a session: `sessions.reading()` and `sessions.writing.begin()`.

    A reading session never takes SQLite's write lock and must not write. A writing one takes the
    lock at its first statement and holds it until it ends, so keep it short. Objects stay readable
    after the session has ended.
    """

    engine: Engine
    reading: sessionmaker[Session]
    writing: sessionmaker[Session]


def make_engine(url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine for `url`. A SQLite file's directory is made if it is missing; whoever finds it
    locked waits for `busy_timeout_s`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(url, parsed.database, busy_timeout_s)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True)


def sessions(engine: Engine) -> Sessions:
    """The session factories of an engine."""
    writer = engine.execution_options(writing=True)
    return Sessions(
        engine,
        sessionmaker(engine, expire_on_commit=False),
        sessionmaker(writer, expire_on_commit=False),
    )


def upgrade(engine: Engine) -> None:
    """Bring the schema up to date, and a SQLite file into today's mode. Many processes may call it
    at once: one does it, all wait."""
    if engine.dialect.name == "sqlite":
        _set_journal(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.execution_options(writing=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _sqlite(url: str, database: str | None, busy_timeout_s: float) -> Engine:
    if database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, module=sqlite, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection, _record) -> None:  # type: ignore[no-untyped-def]  # DBAPI objects
    # The driver must not open transactions by itself: it would use BEGIN DEFERRED.
    connection.isolation_level = None
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _set_journal(engine: Engine) -> None:
    """The file keeps the mode. Who would change it waits for no lock: SQLite says so at once."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    with closing(engine.raw_connection()) as connection:
        while True:
            try:
                connection.cursor().execute(f"PRAGMA journal_mode={JOURNAL}")
                return
            except sqlite.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
