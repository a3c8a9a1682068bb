"""No list grows slower with what has ended: its page comes from an index, in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from service import artifacts, jobs, quotas
from service.site import Site
from service.tables import State

Listing = Callable[[Site, Session], object]

LISTINGS: dict[str, Listing] = {
    "jobs": lambda _, session: jobs.listing(session),
    "jobs of a state": lambda _, session: jobs.listing(session, state=State.SUCCEEDED, before="k"),
    "jobs of a kind": lambda _, session: jobs.listing(session, kind="batch", before="k"),
    "jobs of both": lambda _, session: jobs.listing(session, state=State.FAILED, kind="train"),
    "files": lambda site, _: artifacts.listing(site, "file", name=None, before=None, limit=50),
    "next files": lambda site, _: artifacts.listing(site, "file", name=None, before="f", limit=50),
}


@contextmanager
def asked(site: Site) -> Iterator[list[tuple[str, Any]]]:
    """The statements that reach the database, with their values."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            found.append((statement, values))

    event.listen(site.sessions.engine, "before_cursor_execute", note)
    yield found
    event.remove(site.sessions.engine, "before_cursor_execute", note)


def plan_of(site: Site, listing: Listing) -> str:
    """How SQLite goes about it."""
    with asked(site) as found, site.sessions.reading() as session:
        listing(site, session)
    ((statement, values),) = found
    with site.sessions.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    return "; ".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("name", LISTINGS)
def test_a_page_is_read_in_order_and_no_further(site: Site, name: str) -> None:
    plan = plan_of(site, LISTINGS[name])
    assert "USING INDEX" in plan
    assert "TEMP B-TREE" not in plan


def test_a_keys_open_jobs_are_counted_without_those_that_ended(site: Site) -> None:
    plan = plan_of(site, lambda _, session: quotas.open_jobs(session, "key-1"))
    assert "ix_jobs_key_state (key_id=? AND state=?)" in plan
