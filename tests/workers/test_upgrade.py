"""What the first schema and the first dataset format left is brought up to date and goes on. There
is no release yet; the installation was written by the code of migration 0001."""

import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from prompts.dataset import read_manifest, read_rejected
from service import db
from service.app import create_app
from service.settings import Settings
from service.site import Site, open_site
from service.spec import job_spec
from service.tables import Base, Job, State
from tests.service.conftest import cluster
from tests.service.postgres import PrivateCluster
from tests.workers.conftest import (
    LEASE_S,
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    register,
)
from workers import build
from workers.watch import Watch

__all__ = ["cluster"]

FIRST = Path(__file__).with_name("formats") / "first.tar.gz"
SPECS = FIRST.with_name("first-specs.jsonl")
ANSWERED = 12
"""Rows of the killed build that the old code had paid for."""
ROWS = {"old-sums": 40, "old-half": 96, "old-queued": 24}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The old installation with its tables as they were, on each kind of database."""
    data = tmp_path / "data"
    with tarfile.open(FIRST) as packed:
        packed.extractall(data, filter="data")
    settings = Settings(data_dir=data, lease_s=LEASE_S, min_free_bytes=0)
    if request.param == "postgresql":
        running: PrivateCluster = request.getfixturevalue("cluster")
        settings = settings.model_copy(update={"database_url": running.new_database()})
        move(data / "retort.db", settings.database_url)
    opened = open_site(settings)
    yield opened
    opened.sessions.engine.dispose()


def move(source: Path, target: str) -> None:
    """Bring the rows of the old SQLite file into a PostgreSQL database of that very schema."""
    old, new = db.make_engine(f"sqlite:///{source}"), db.make_engine(target)
    config = Config()
    config.set_main_option("script_location", str(Path(db.__file__).parent / "migrations"))
    with old.connect() as reading, new.begin() as writing:
        config.attributes["connection"] = writing
        command.upgrade(config, "0001")
        tables = sa.MetaData()
        tables.reflect(writing)
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                rows = reading.execute(sa.select(table)).mappings().all()
                writing.execute(table.insert(), [dict(row) for row in rows]) if rows else None
        # Ids that came with their rows were not drawn from the sequence.
        newest = sa.text("SELECT setval('events_id_seq', (SELECT max(id) FROM events))")
        writing.execute(newest)
    old.dispose()
    new.dispose()


@pytest.mark.slow
def test_an_old_installation_goes_on_with_what_it_had(old: Site, stub: StubTeacher) -> None:
    assert not set(sa.inspect(old.sessions.engine).get_table_names()) >= set(Base.metadata.tables)
    db.upgrade(old.sessions.engine)
    ids = jobs_by_name(old)
    assert get_job(old, ids["old-sums"]).state == State.SUCCEEDED
    check_each_once(dataset_of(old, ids["old-sums"]), ROWS["old-sums"])
    register(old, stub.url)
    # The killed worker's leases run out by themselves; nobody renews them.
    watch = Watch(old.settings.lease_s)
    for name in ("old-half", "old-queued"):
        while get_job(old, ids[name]).state in (State.QUEUED, State.RUNNING):
            build.run(old, ids[name], watch)
            time.sleep(0.1)
        job = get_job(old, ids[name])
        assert (job.state, job.detail) == (State.SUCCEEDED, None)
        check_each_once(dataset_of(old, ids[name]), ROWS[name])
    # What was paid for then is not asked for again.
    assert stub.stats()["requests"] == ROWS["old-half"] + ROWS["old-queued"] - ANSWERED


async def test_an_old_dataset_is_read_shown_and_taken_up(old: Site) -> None:
    db.upgrade(old.sessions.engine)
    dataset = dataset_of(old, jobs_by_name(old)["old-sums"])
    assert read_manifest(dataset).counts.accepted == 31
    assert len(list(read_rejected(dataset))) == 9
    app = create_app(old.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = old
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        rows = (await client.get("/api/v1/datasets/old-sums/rows?q=plus&limit=5")).json()["rows"]
        assert len(rows) == 5
        verdicts = {"verdicts": [{"id": rows[0]["id"], "accept": False}]}
        made = await client.post("/api/v1/datasets/old-sums/review", json=verdicts)
        assert (made.status_code, made.json()["version"]) == (201, 2)
        events = await client.get(f"/api/v1/jobs/{jobs_by_name(old)['old-sums']}/events")
        assert "succeeded" in events.text


def test_old_specs_are_read_by_the_code_of_today(old: Site) -> None:
    specs = [json.loads(line) for line in SPECS.read_text().splitlines()]
    with old.sessions.engine.execution_options(writing=True).begin() as connection:
        jobs = sa.Table("jobs", sa.MetaData(), autoload_with=connection)
        common = dict(connection.execute(sa.select(jobs).limit(1)).mappings().one())
        rows = [
            common | {"id": f"job-old-{n:02}", "kind": spec["kind"], "spec": spec}
            for n, spec in enumerate(specs)
        ]
        connection.execute(jobs.insert(), rows)
    db.upgrade(old.sessions.engine)
    with old.sessions.reading() as session:
        query = sa.select(Job).where(Job.id.startswith("job-old-")).order_by(Job.id)
        found = [job.spec for job in session.scalars(query)]
    for spec in found:
        job_spec.validate_python(spec)
    assert len(found) == len(specs)
    assert found[0]["build"]["target_rows"] == specs[0]["build"]["target"] == 7
    scaled = [stage.get("scaling") for spec in found for stage in stages(spec)]
    whitened = [stage.get("whitening") for spec in specs for stage in stages(spec)]
    assert {False, True} <= set(whitened)
    said = {None: None, True: "whitening", False: "none"}
    assert scaled == [said[each] for each in whitened]


def stages(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return list(spec["compress"]["stages"]) if spec.get("compress") else []


def jobs_by_name(site: Site) -> dict[str, str]:
    with site.sessions.reading() as session:
        return {job.name: job.id for job in session.scalars(sa.select(Job))}
