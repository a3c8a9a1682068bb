import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service import disk, jobs
from service.problems import Problem
from service.site import Site
from service.store import Store
from service.tables import Artifact
from tests.service.given import add_model, spec


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "data" / "rows.bin").write_bytes(b"x" * 1000)
    return folder


def publish(site: Site, source: Path, name: str = "student", job_id: str | None = None) -> Artifact:
    with site.sessions.writing.begin() as session:
        return site.store.publish(
            session, "model", name, source, summary={"n": 1}, inputs=["ds-1"], job_id=job_id
        )


async def blocks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_a_directory_is_published_whole_and_stays_where_it_was(any_site: Site, made: Path) -> None:
    artifact = publish(any_site, made)
    path = any_site.store.path(artifact)

    assert (path / "data" / "rows.bin").read_bytes() == b"x" * 1000
    assert (made / "config.json").exists()
    assert (artifact.version, artifact.bytes, artifact.inputs) == (1, 1002, ["ds-1"])


def test_versions_count_up_per_name(any_site: Site, made: Path) -> None:
    assert [publish(any_site, made).version for _ in range(3)] == [1, 2, 3]
    assert publish(any_site, made, "other").version == 1


def test_a_task_that_runs_twice_publishes_once(any_site: Site, made: Path) -> None:
    job = jobs.submit(any_site, spec(kind="serve", model="a/b", name="t"))
    first, second = (publish(any_site, made, job_id=job.id) for _ in range(2))

    assert first.id == second.id
    assert os.listdir(any_site.store.root / "model") == [first.id]


def test_the_digest_is_the_manifests_where_there_is_one(site: Site, made: Path) -> None:
    plain = publish(site, made).sha256
    (made / "data" / "rows.bin").write_bytes(b"y" * 1000)
    assert publish(site, made).sha256 != plain

    (made / "manifest.json").write_text("{}")
    assert publish(site, made).sha256 == disk.copy(made / "config.json", made / "copy").sha256


def test_references_are_ids_names_and_versions(site: Site, made: Path) -> None:
    first, second = publish(site, made), publish(site, made)
    with site.sessions.reading() as session:
        found = {
            reference: site.store.resolve(session, reference, "model").id
            for reference in (first.id, "student", "student@1", "student@2")
        }
    assert list(found.values()) == [first.id, second.id, first.id, second.id]


@pytest.mark.parametrize("reference", ["studnet", "student@3", "zzz"])
def test_an_unknown_name_is_told_with_near_ones(site: Site, made: Path, reference: str) -> None:
    publish(site, made)
    with pytest.raises(Problem, match="student") as raised, site.sessions.reading() as session:
        site.store.resolve(session, reference, "model")
    assert raised.value.status == 404


def test_an_id_of_another_kind_is_not_found(site: Site, made: Path) -> None:
    artifact = publish(site, made)
    with pytest.raises(Problem), site.sessions.reading() as session:
        site.store.resolve(session, artifact.id, "dataset")


def test_models_are_named_by_id_directory_or_hub_name(site: Site, tmp_path: Path) -> None:
    directory = add_model(tmp_path / "m")
    artifact = publish(site, directory)
    with site.sessions.reading() as session:
        assert site.store.name_model(session, "student") == artifact.id
        assert site.store.name_model(session, str(directory)) == str(directory)
        assert site.store.name_model(session, "Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
        located = site.store.locate_model(session, artifact.id)
    assert Path(located) == site.store.path(artifact)


@pytest.mark.parametrize("reference", ["./missing", "{tmp}/empty", "{tmp}/missing"])
def test_a_directory_that_is_no_model_is_refused(
    site: Site, tmp_path: Path, reference: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problem) as raised, site.sessions.reading() as session:
        site.store.name_model(session, reference.format(tmp=tmp_path))
    assert raised.value.status == 422


def test_server_paths_can_be_forbidden(site: Site, tmp_path: Path) -> None:
    store = Store(site.store.root, 0, 1000, allow_server_paths=False)
    directory = add_model(tmp_path / "m")
    with pytest.raises(Problem, match="not allowed"), site.sessions.reading() as session:
        store.name_model(session, str(directory))


async def test_an_upload_is_kept_byte_for_byte(site: Site) -> None:
    upload = await site.store.receive(blocks(b"ab", b"c"), "../my seeds.jsonl")
    with site.sessions.writing.begin() as session:
        artifact = site.store.keep(session, upload, {"rows": 1})

    assert artifact.name == "my_seeds.jsonl"
    assert site.store.path(artifact).read_bytes() == b"abc"
    assert artifact.sha256.startswith("ba7816bf")
    assert os.listdir(site.store.root / "incoming") == []


async def test_a_too_large_upload_leaves_nothing_behind(site: Site) -> None:
    small = Store(site.store.root, 0, 4, True)
    with pytest.raises(Problem, match="too large") as raised:
        await small.receive(blocks(b"abc", b"de"), "x")
    assert raised.value.status == 413
    assert os.listdir(site.store.root / "incoming") == []


async def test_a_broken_upload_leaves_nothing_behind(site: Site) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionError("client gone")

    with pytest.raises(ConnectionError):
        await site.store.receive(broken(), "x")
    assert os.listdir(site.store.root / "incoming") == []


async def test_an_upload_onto_a_full_disk_leaves_nothing_behind(site: Site) -> None:
    async def until_full() -> AsyncIterator[bytes]:
        yield b"abc"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Problem) as raised:
        await site.store.receive(until_full(), "x")
    assert raised.value.status == 507
    assert os.listdir(site.store.root / "incoming") == []


def test_a_publication_that_would_fill_the_disk_is_refused(site: Site, made: Path) -> None:
    crowded = Store(site.store.root, 1 << 60, 1, True)
    with pytest.raises(Problem) as raised, site.sessions.writing.begin() as session:
        crowded.publish(session, "model", "student", made, summary={}, inputs=[])
    assert raised.value.status == 507
    assert os.listdir(site.store.root / "model") == []
