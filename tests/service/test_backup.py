"""A backup holds all there is; a restore brings it back, on either database, and mends the rest."""

import dataclasses
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from service import backup, db, events, jobs
from service.backup import Restored
from service.broker import Broker
from service.problems import Problem
from service.secret import secret_of
from service.settings import Settings
from service.site import Site, open_site
from service.tables import Artifact, Base, Chunk, ChunkState, Grant, Job, Reply, State, utc
from tests.service.fakes import FakeBroker
from tests.service.given import add_file, add_teacher, build, spec
from tests.service.postgres import PrivateCluster


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Site]:
    """An installation that is new."""
    yield from opened(Settings(data_dir=tmp_path / "new", min_free_bytes=0))


def opened(settings: Settings) -> Iterator[Site]:
    site = open_site(settings)
    db.upgrade(site.sessions.engine)
    yield dataclasses.replace(site, broker=cast(Broker, FakeBroker()))
    site.sessions.engine.dispose()


def start(site: Site) -> str:
    """A build that is half done, as its worker leaves it; its id."""
    add_teacher(site)
    job = jobs.submit(site, spec(kind="build", build=build(add_file(site, '{"question": "1?"}\n'))))
    folder = site.store.root / "build" / job.id
    folder.mkdir(parents=True)
    (folder / "seeds.jsonl").write_text('{"question": "1?"}\n')
    (folder / "done").write_text("rows")
    facts = {"job_id": job.id, "first_row": 0, "rows": 1, "offset": 0, "epoch": 3}
    done = {"path": f"build/{job.id}/done", "state": ChunkState.DONE, "accepted": 1}
    lost = done | {"path": f"build/{job.id}/lost"}
    leased = {"state": ChunkState.LEASED, "owner": "me"}
    with site.sessions.writing.begin() as session:
        working = session.get_one(Job, job.id)
        working.state, working.owner, working.epoch = State.RUNNING, "me", 7
        for number, fields in enumerate((done, leased, lost)):
            session.add(Chunk(number=number, **facts | fields))
        session.add(Grant(teacher="t", owner="me", job_id=job.id, wanted=1, granted=1))
        blank: dict[str, Any] = {"headers": {}, "body": "", "request_sha256": ""}
        session.add(Reply(key_sha256="a", **blank))
        session.add(Reply(key_sha256="b", status=200, **blank))
    return job.id


def move(site: Site, new: Site, tmp_path: Path) -> Restored:
    backup.backup(site, tmp_path / "b.tar.zst")
    return backup.restore(new, tmp_path / "b.tar.zst")


def rows(site: Site) -> dict[str, int]:
    with site.sessions.reading() as session:
        tables = Base.metadata.sorted_tables
        return {table.name: len(session.execute(select(table)).all()) for table in tables}


def test_everything_comes_back(site: Site, new: Site, tmp_path: Path) -> None:
    job_id = start(site)
    train = jobs.submit(site, spec(kind="serve", model="org/model", name="s"))
    checkpoint = site.settings.data_dir / "work" / train.id / "out" / "checkpoints" / "5"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("weights")
    secret = secret_of(site.settings)
    found = move(site, new, tmp_path)
    assert (found.jobs, found.unfinished, found.missing) == (2, 2, ())
    assert secret_of(new.settings) == secret
    assert stat.S_IMODE((new.settings.data_dir / "secret.key").stat().st_mode) == 0o600
    assert (new.settings.data_dir / checkpoint.relative_to(site.settings.data_dir)).read_text()
    restored, before = rows(new), rows(site)
    # A grant, a reply that never came; and each unfinished job is told.
    changed = {"grants": 0, "replies": 1, "events": before["events"] + 2}
    assert restored == before | changed
    with new.sessions.reading() as session, site.sessions.reading() as old:
        file, same = session.scalars(select(Artifact)).one(), old.scalars(select(Artifact)).one()
        assert new.store.path(file).read_bytes() == site.store.path(same).read_bytes()
        assert utc(file.created_at) == utc(same.created_at)
        assert events.since(session, job_id, 0)[-1].type == "restored"


def test_work_that_was_under_way_can_be_claimed_and_what_is_missing_is_done_again(
    site: Site, new: Site, tmp_path: Path
) -> None:
    job_id = start(site)
    move(site, new, tmp_path)
    with new.sessions.reading() as session:
        job = session.get_one(Job, job_id)
        chunks = session.scalars(select(Chunk).order_by(Chunk.number)).all()
    assert (job.state, job.owner, job.epoch) == (State.RUNNING, None, 1007)
    assert [chunk.state for chunk in chunks] == ["done", "pending", "pending"]
    assert [(chunk.owner, chunk.epoch) for chunk in chunks] == [(None, 1003)] * 3
    assert [chunk.accepted for chunk in chunks] == [1, 0, 0]


def test_a_build_whose_seeds_are_missing_begins_anew(site: Site, new: Site, tmp_path: Path) -> None:
    job_id = start(site)
    (site.store.root / "build" / job_id / "seeds.jsonl").unlink()
    move(site, new, tmp_path)
    with new.sessions.reading() as session:
        assert session.get_one(Job, job_id).state == State.QUEUED
        assert session.scalars(select(Chunk)).all() == []


def test_an_artifact_without_files_is_named(site: Site, new: Site, tmp_path: Path) -> None:
    file = add_file(site, "x")
    with site.sessions.reading() as session:
        site.store.path(session.get_one(Artifact, file)).unlink()
    assert move(site, new, tmp_path).missing == (file,)


@pytest.mark.slow
def test_what_can_not_be_restored_is_refused(site: Site, new: Site, tmp_path: Path) -> None:
    start(site)
    file = tmp_path / "b.tar.zst"
    backup.backup(site, file)
    with pytest.raises(Problem, match="already"):
        backup.backup(site, file)
    with pytest.raises(Problem, match="hold itself"):
        backup.backup(site, site.store.root / "b")
    with pytest.raises(Problem, match="not empty"):
        backup.restore(site, file)
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-40])
    other = tmp_path / "other"
    other.write_text("something else")
    for damaged in (cut, other):
        with pytest.raises(Problem, match="can't be used"):
            backup.restore(new, damaged)
        assert sum(rows(new).values()) == 0
    backup.restore(new, file)


@pytest.mark.servers
def test_a_backup_moves_from_one_database_to_the_other_and_back(
    site: Site, new: Site, tmp_path: Path, cluster: PrivateCluster
) -> None:
    job_id = start(site)
    url = cluster.new_database()
    middle = Settings(data_dir=tmp_path / "pg", database_url=url, min_free_bytes=0)
    for between in opened(middle):
        move(site, between, tmp_path)
        with between.sessions.writing.begin() as session:
            events.emit(session, job_id, "progress", {})  # Its number is free.
        backup.backup(between, tmp_path / "second")
        backup.restore(new, tmp_path / "second")
        there = rows(between)
    assert rows(new) == there | {"events": there["events"] + 1}
    with new.sessions.reading() as session, site.sessions.reading() as old:
        moments = [utc(each.get_one(Job, job_id).created_at) for each in (session, old)]
        assert moments[0] == moments[1]
        assert session.get_one(Job, job_id).spec == old.get_one(Job, job_id).spec
