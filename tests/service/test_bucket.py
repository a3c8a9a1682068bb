"""Artifacts in a bucket, on a real S3 server: what one host published whole, all others read."""

import dataclasses
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import httpx
import pytest
from sqlalchemy import func, select

from service import backup, chain, db, jobs, retention, timetable
from service.app import create_app
from service.broker import Broker
from service.cli.doctor import artifacts as doctors_check
from service.problems import Problem
from service.settings import Settings
from service.shared import StorageAwayError, StorageError
from service.site import Site, open_site
from service.store import light
from service.tables import Artifact, Job, State, now
from service.timetable import ScheduleSpec
from tests.service.fakes import FakeBroker
from tests.service.given import add_teacher, build, spec
from tests.service.s3 import Line, S3Server, bucket, line, s3_server
from tests.service.test_retention import add_job

__all__ = ["bucket", "line", "s3_server"]

pytestmark = pytest.mark.servers

NewHost = Callable[[str], Site]


@pytest.fixture
def host(tmp_path: Path, bucket: str, empty_database: Path) -> Iterator[NewHost]:
    """Makes hosts with data directories of their own; database and bucket are one."""
    database = tmp_path / "retort.db"
    shutil.copy(empty_database, database)
    made: list[Site] = []

    def new(name: str, root: str = f"{bucket}/some/prefix") -> Site:
        settings = Settings(
            data_dir=tmp_path / name,
            database_url=f"sqlite:///{database}",
            artifact_root=root,
            min_free_bytes=0,
        )
        made.append(open_site(settings))
        return dataclasses.replace(made[-1], broker=cast(Broker, FakeBroker()))

    yield new
    for site in made:
        site.sessions.engine.dispose()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory to publish, with a file that goes up in one piece of 2 MB."""
    folder = tmp_path / "made"
    (folder / "more").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "more" / "empty").write_bytes(b"")
    (folder / "weights.safetensors").write_bytes(os.urandom(2_000_000))
    return folder


def publish(site: Site, folder: Path) -> Artifact:
    with site.sessions.writing.begin() as session:
        return site.store.publish(session, "model", "m", folder, summary={}, inputs=[])


def published(site: Site) -> int | None:
    with site.sessions.reading() as session:
        return session.scalar(select(func.count()).select_from(Artifact))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_one_host_publishes_another_reads(host: NewHost, model: Path) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    path = there.store.path(artifact, light)
    assert contents(path).keys() == {"config.json", "more/empty"}
    assert there.store.path(artifact) == path
    assert contents(path) == contents(model)
    assert path.is_relative_to(there.settings.data_dir)
    assert there.store.location(artifact).endswith(f"/some/prefix/model/{artifact.id}")


def test_what_is_here_is_not_asked_for_again(host: NewHost, model: Path, line: Line) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    there.store.path(artifact)
    line.cut()
    assert contents(there.store.path(artifact)) == contents(model)
    assert contents(here.store.path(artifact)) == contents(model)


@pytest.mark.parametrize("megabytes", [1, 120])
def test_an_upload_that_breaks_off_is_seen_by_nobody(
    megabytes: int, host: NewHost, model: Path, line: Line, bucket: str, s3_server: S3Server
) -> None:
    here = host("here")
    with (model / "z.safetensors").open("wb") as sparse:
        sparse.truncate(megabytes * 2**20)
    line.cut(after_bytes=2_500_000)
    with pytest.raises(StorageAwayError, match="doesn't answer"):
        publish(here, model)
    left = [key.rpartition("/")[2] for key in s3_server.objects(bucket)]
    assert "config.json" in left
    assert not any(key.startswith("model-") or key == "z.safetensors" for key in left)
    assert (published(here), contents(here.store.root / "model")) == (0, {})


def test_what_a_broken_upload_left_goes_after_a_day(
    host: NewHost, model: Path, line: Line, bucket: str, s3_server: S3Server
) -> None:
    here, there = host("here"), host("there")
    line.cut(after_bytes=1_000_000)
    with pytest.raises(StorageAwayError):
        publish(here, model)
    line.mend()
    whole = publish(here, model)
    assert contents(there.store.path(whole)) == contents(model)
    assert retention.sweep(here, now(), dry_run=False).waste == ()
    swept = retention.sweep(here, now() + timedelta(days=2), dry_run=False)
    assert [waste.kind for waste in swept.waste] == ["left_behind"]
    assert all(whole.id in key for key in s3_server.objects(bucket))
    assert len(s3_server.objects(bucket)) == 4


def test_an_object_that_was_changed_is_refused(host: NewHost, model: Path) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    here.store.shared.write(here.store.root / artifact.path / "config.json", b"{ }")
    with pytest.raises(StorageError, match=r"config\.json is not what was published"):
        there.store.path(artifact)
    assert contents(there.store.root / artifact.path) == {}


def test_a_manifest_that_leads_out_of_its_folder_is_refused(host: NewHost, model: Path) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    wrong = {"format": 1, "files": {"../../../x": {"bytes": 0, "sha256": ""}}}
    place = here.store.root / f"{artifact.path}.json"
    here.store.shared.write(place, json.dumps(wrong).encode())
    with pytest.raises(StorageError, match="leads out of it"):
        there.store.path(artifact)


def test_a_download_that_the_disk_has_no_room_for_is_refused(host: NewHost, model: Path) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    crowded = open_site(there.settings.model_copy(update={"min_free_bytes": 1 << 60}))
    with pytest.raises(Problem) as raised:
        crowded.store.path(artifact)
    assert raised.value.status == 507
    crowded.sessions.engine.dispose()


def test_two_publications_of_one_job_are_one(
    host: NewHost, model: Path, bucket: str, s3_server: S3Server
) -> None:
    here = host("here")
    job = add_job(here, State.RUNNING)
    facts = {"summary": {}, "inputs": [], "job_id": job}
    ids = set()
    for _ in range(2):
        with here.sessions.writing.begin() as session:
            ids.add(here.store.publish(session, "model", "m", model, **facts).id)
    assert len(ids) == 1
    assert len(s3_server.objects(bucket)) == 4


def test_writers_dont_wait_for_a_reader_that_downloads(host: NewHost, model: Path) -> None:
    here, there = host("here"), host("there")
    artifact = publish(here, model)
    with there.sessions.reading() as reader:
        assert Path(there.store.locate_model(reader, "m")).name == artifact.id
        add_job(here, State.FAILED)


def client_of(site: Site) -> httpx.AsyncClient:
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_a_dataset_that_came_in_on_one_host_is_shown_by_another(
    host: NewHost, bucket: str, s3_server: S3Server
) -> None:
    rows = [{"id": f"r{n}", "prompt": f"{n}?", "completion": f"{n}."} for n in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    here, there = host("here"), host("there")
    async with client_of(here) as api:
        query = {"name": "model.bin", "purpose": "dataset"}
        file = (await api.post("/api/v1/files", params=query, content=text)).json()
    async with client_of(there) as api:
        body = await api.get(f"/api/v1/files/{file['id']}/content")
        assert body.text == text
        renamed = {"name": "rows.jsonl", "purpose": "dataset"}
        file = (await api.post("/api/v1/files", params=renamed, content=text)).json()
        wanted = {"name": "d", "file": file["id"]}
        dataset = (await api.post("/api/v1/datasets/import", json=wanted)).json()
    assert dataset["location"].startswith(f"{bucket}/some/prefix/dataset/ds-")
    async with client_of(host("third")) as api:
        shown = await api.get("/api/v1/datasets/d/rows", params={"q": "7?", "limit": 5})
        assert [row["id"] for row in shown.json()["rows"]] == ["r7", "r17"]
        page = await api.get(f"/datasets/{dataset['id']}")
        assert page.status_code == 200
        zipped = await api.get("/api/v1/datasets/d/download")
        names = set(zipfile.ZipFile(io.BytesIO(zipped.content)).namelist())
        assert {"manifest.json", "README.md"} < names
    async with client_of(there) as api:
        gone = await api.delete(f"/v1/files/{file['id']}")
        assert gone.json()["deleted"]
    assert not any(file["id"] in key for key in s3_server.objects(bucket))


async def test_what_is_wrong_with_the_bucket_is_said(
    host: NewHost, bucket: str, s3_server: S3Server, line: Line
) -> None:
    async def says(site: Site, words: str) -> None:
        query = {"name": "seeds.jsonl"}
        async with client_of(site) as api:
            refused = await api.post("/api/v1/files", params=query, content='{"question": "1"}')
            health = await api.get("/readyz")
        assert (refused.status_code, refused.json()["code"]) == (503, "storage")
        assert words in refused.json()["detail"]
        assert (health.status_code, health.json()["artifacts"]) == (503, False)
        found = doctors_check(site.settings)
        assert (found.state, words in found.words) == ("wrong", True)
        assert published(site) == 0

    await says(host("a", "s3://no-such-bucket-here/x"), "there is no bucket no-such-bucket-here")
    with s3_server.refusing():
        await says(host("b"), "InvalidAccessKeyId")
    site = host("c")
    line.cut()
    await says(site, "doesn't answer")
    line.mend()
    assert doctors_check(site.settings).state == "ok"


async def test_every_face_says_that_the_bucket_is_away(host: NewHost, line: Line) -> None:
    rows = '{"prompt": "1?", "completion": "1"}\n'
    async with client_of(host("here")) as api:
        query = {"name": "rows.jsonl", "purpose": "dataset"}
        file = (await api.post("/api/v1/files", params=query, content=rows)).json()["id"]
        wanted = {"name": "d", "file": file}
        dataset = (await api.post("/api/v1/datasets/import", json=wanted)).json()["id"]
    line.cut()
    async with client_of(host("there")) as api:
        by_openai = await api.get(f"/v1/files/{file}/content")
        page = await api.get(f"/datasets/{dataset}")
    assert (by_openai.status_code, by_openai.json()["error"]["code"]) == (503, "storage")
    assert (page.status_code, "doesn&#39;t answer" in page.text) == (503, True)


def test_what_is_submitted_by_itself_waits_for_the_bucket(
    host: NewHost, tmp_path: Path, line: Line
) -> None:
    here, there = host("here"), host("there")
    add_teacher(here)
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"id": "1", "question": "1?"}\n')
    with here.sessions.writing.begin() as session:
        file = here.store.publish(session, "file", "s", seeds, summary={}, inputs=[]).id
    recipe = spec(kind="recipe", name="r", build=build(file))
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    timetable.create(here, ScheduleSpec(name="n", cron="* * * * *", job=recipe), noon)
    by_hand = jobs.submit(here, recipe).id
    line.cut()
    later = noon + timedelta(minutes=1)
    timetable.tick(there, later)
    chain.advance(there, by_hand)
    kinds = select(Job.kind).order_by(Job.kind)
    with here.sessions.reading() as session:
        assert session.scalars(kinds).all() == ["recipe"]
    line.mend()
    timetable.tick(there, later)
    chain.advance(there, by_hand)
    with here.sessions.reading() as session:
        assert session.scalars(kinds).all() == ["build", "recipe", "recipe"]


def test_without_credentials_it_says_so(
    host: NewHost, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="there are no credentials"):
        publish(host("here"), model)


def test_retention_looks_into_the_bucket_and_into_the_mirror(
    host: NewHost, model: Path, bucket: str, s3_server: S3Server
) -> None:
    here, there = host("here"), host("there")
    shared, root = here.store.shared, here.store.root
    ended, running = add_job(here, State.FAILED), add_job(here, State.RUNNING)
    for job in (ended, running):
        shared.write(root / "ledger" / job / "000000" / "000001" / "000001", b"paid for")
    shared.write(root / "cache" / "ab" / "cdef", b"said")
    read, unread = (there.store.path(publish(here, model)) for _ in range(2))
    os.utime(unread, (time.time() - 40 * 86400,) * 2)
    swept = retention.sweep(there, now(), dry_run=False)
    assert {(waste.kind, waste.bytes) for waste in swept.waste} == {
        ("ledger", 8),
        ("mirror", 2_000_002),
    }
    assert (read.exists(), unread.exists()) == (True, False)
    keys = s3_server.objects(bucket)
    assert [ended in "".join(keys), running in "".join(keys)] == [False, True]
    forgetful = there.settings.model_copy(update={"keep_cache_days": 1.0})
    old = now() + timedelta(days=2)
    assert retention.sweep(dataclasses.replace(there, settings=forgetful), old, dry_run=False)
    assert not any("/cache/" in key for key in s3_server.objects(bucket))
    assert sum(unread.name in key for key in s3_server.objects(bucket)) == 4


def test_a_restored_database_finds_its_artifacts_in_the_bucket(
    host: NewHost, model: Path, tmp_path: Path, bucket: str
) -> None:
    here = host("here")
    artifact = publish(here, model)
    lost, torn = publish(here, model), publish(here, model)
    here.store.shared.remove(here.store.folder(lost))
    here.store.shared.write(here.store.folder(torn) / "config.json", b"{")
    backup.backup(here, tmp_path / "b.tar.zst")
    new = open_site(Settings(data_dir=tmp_path / "new", artifact_root=f"{bucket}/some/prefix"))
    db.upgrade(new.sessions.engine)
    restored = backup.restore(new, tmp_path / "b.tar.zst")
    assert restored.missing == (lost.id, torn.id)
    assert contents(new.store.path(artifact)) == contents(model)
    new.sessions.engine.dispose()


def test_a_directorys_backup_is_restored_into_a_bucket(
    host: NewHost, site: Site, model: Path, tmp_path: Path
) -> None:
    artifact = publish(site, model)
    backup.backup(site, tmp_path / "b.tar.zst")
    assert backup.restore(host("new"), tmp_path / "b.tar.zst").missing == ()
    assert contents(host("other").store.path(artifact)) == contents(model)
