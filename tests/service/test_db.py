import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError

from service import db
from service.site import Site
from service.tables import Base, Job


def test_migrations_lead_to_the_schema_of_the_tables(any_site: Site) -> None:
    with any_site.sessions.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrades_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/retort.db"
    failures: list[Exception] = []

    def upgrade() -> None:
        engine = db.make_engine(url)
        try:
            db.upgrade(engine)
        except OperationalError as error:
            failures.append(error)
        engine.dispose()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    engine = db.make_engine(url)
    assert failures == []
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    engine.dispose()


def test_sqlite_keeps_what_was_committed_through_a_power_cut(site: Site) -> None:
    with site.sessions.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_writer_takes_the_lock_at_its_start_and_a_reader_never(site: Site) -> None:
    impatient = db.sessions(db.make_engine(site.settings.database_url, busy_timeout_s=0))
    with site.sessions.writing.begin() as writer:
        writer.execute(text("SELECT 1"))
        with impatient.reading() as reader:
            assert reader.scalar(text("SELECT count(*) FROM jobs")) == 0
        with pytest.raises(OperationalError, match="locked"), impatient.writing() as second:
            second.execute(text("SELECT 1"))
    impatient.engine.dispose()


def test_a_file_of_an_older_release_gets_todays_journal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/old.db"
    engine = db.make_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=delete")
        connection.exec_driver_sql("CREATE TABLE old (id INTEGER)")
    db.upgrade(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_readers_wait_for_no_writer_and_see_what_was_committed(site: Site) -> None:
    impatient = db.sessions(db.make_engine(site.settings.database_url, busy_timeout_s=0))
    with impatient.reading() as reader, site.sessions.writing.begin() as writer:
        jobs = text("SELECT count(*) FROM jobs")
        before = reader.scalar(jobs)
        row = {"id": "job-1", "kind": "build", "name": "n", "spec": {}}
        writer.add(Job(**row))
        writer.commit()  # A reader holds up no commit either.
        assert reader.scalar(jobs) == before
        with impatient.reading() as later:
            assert later.scalar(jobs) == 1
    impatient.engine.dispose()
