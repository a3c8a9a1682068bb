"""What is deleted, and above all what is not."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import access, jobs, retention, timetable
from service.retention import Sweep
from service.settings import Settings
from service.site import Site
from service.tables import Artifact, Job, State, now
from service.timetable import ScheduleSpec
from tests.service.given import add_file, add_teacher, build, spec

OLD = timedelta(days=100)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything is kept for ten days."""
    names = ("ledgers", "checkpoints", "logs", "cache", "files")
    ages: dict[str, Any] = {f"keep_{name}_days": 10.0 for name in names}
    return Settings(data_dir=tmp_path / "data", min_free_bytes=0, **ages)


def write(path: Path, days: float = 100.0) -> Path:
    """A file of four bytes that was written so long ago, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("data")
    at = (now() - timedelta(days=days)).timestamp()
    for each in (path, path.parent):
        os.utime(each, (at, at))
    return path


def add_job(site: Site, state: State, days: float = 100.0, **fields: Any) -> str:
    """A job that ended so long ago, with all that a job leaves on the disk."""
    name = f"job-{len(list(site.store.root.glob('ledger/*')))}{state}"
    ended = now() - timedelta(days=days) if state in ("failed", "cancelled", "succeeded") else None
    given = {"kind": "build", "name": "n", "spec": {}, "state": state, "finished_at": ended}
    with site.sessions.writing.begin() as session:
        session.add(Job(id=name, **given | fields))
    for folder in ("ledger", "build"):
        write(site.store.root / folder / name / "0" / "1")
    write(site.settings.data_dir / "work" / name / "train.log")
    write(site.settings.data_dir / "work" / name / "out" / "checkpoints" / "5")
    return name


def sweep(site: Site, **changes: Any) -> Sweep:
    settings = site.settings.model_copy(update=changes)
    return retention.sweep(dataclasses.replace(site, settings=settings), now(), dry_run=False)


def left(site: Site, name: str) -> set[str]:
    """What there is still of a job."""
    places = {
        "ledger": site.store.root / "ledger" / name,
        "build": site.store.root / "build" / name,
        "out": site.settings.data_dir / "work" / name / "out",
        "work": site.settings.data_dir / "work" / name,
    }
    return {what for what, path in places.items() if path.exists()}


@pytest.mark.parametrize(
    ("off", "stays"),
    [
        ("keep_ledgers_days", {"ledger", "build"}),
        ("keep_logs_days", {"work"}),
        ("keep_checkpoints_days", set()),
    ],
)
def test_what_ended_jobs_leave_goes_by_its_age(site: Site, off: str, stays: set[str]) -> None:
    ended = add_job(site, State.FAILED)
    recent = add_job(site, State.CANCELLED, days=3)
    assert left(site, recent) == {"ledger", "build", "out", "work"}
    sweep(site, **{off: None})
    assert left(site, ended) == stays
    assert left(site, recent) == {"ledger", "build", "out", "work"}
    sweep(site, **{off: 10.0})
    assert left(site, ended) == set()


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.PAUSED])
def test_jobs_that_have_not_ended_lose_nothing(site: Site, state: State) -> None:
    working = add_job(site, state)
    recipe = add_job(site, state, kind="recipe")
    part = add_job(site, State.SUCCEEDED, parent_id=recipe)
    sweep(site)
    for name in (working, recipe, part):
        assert left(site, name) == {"ledger", "build", "out", "work"}


def add_old_file(site: Site, name: str) -> str:
    file = add_file(site, '{"question": "1?", "answer": "1"}\n', name)
    with site.sessions.writing.begin() as session:
        session.get_one(Artifact, file).created_at = now() - OLD
    return file


def files(site: Site) -> set[str]:
    return {path.name for path in (site.store.root / "file").glob("*")}


def test_only_files_that_nothing_refers_to_go(site: Site) -> None:
    add_teacher(site)
    named, by_id, of_schedule, of_dataset, in_path, unneeded = (
        add_old_file(site, f"{number}.jsonl") for number in range(6)
    )
    fresh = add_file(site, "{}", "fresh.jsonl")
    jobs.submit(site, spec(kind="build", build=build(by_id)))
    stored = {"build": {"seeds": "0.jsonl@1", "at": f"/data/artifacts/file/{in_path}/4.jsonl"}}
    add_job(site, State.PAUSED, spec=stored)
    add_job(site, State.SUCCEEDED, spec={"build": {"seeds": unneeded}})
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    job = spec(kind="build", build=build(of_schedule))
    timetable.create(site, ScheduleSpec(name="n", cron="0 0 1 1 *", job=job), noon)
    fields = {"bytes": 1, "sha256": "", "summary": {}, "version": 1, "path": "dataset/ds-1"}
    with site.sessions.writing.begin() as session:
        session.add(Artifact(id="ds-1", kind="dataset", name="d", inputs=[of_dataset], **fields))
    sweep(site)
    assert files(site) == {named, by_id, of_schedule, of_dataset, in_path, fresh}
    with site.sessions.reading() as session:
        assert session.get(Artifact, unneeded) is None
        assert session.get(Artifact, "ds-1") is not None
    sweep(site, keep_files_days=None)
    assert named in files(site)


def test_the_cache_and_what_a_crash_left_go_by_their_age(site: Site) -> None:
    root = site.store.root
    gone = [
        write(root / "cache" / "ab" / "old"),
        write(root / "incoming" / "file-half"),
    ]
    kept = [
        write(root / "cache" / "ab" / "new", days=1),
        write(root / "incoming" / "file-coming", days=0.5),
        write(root / "model" / "model-without-a-row" / "config.json").parent,
    ]
    swept = sweep(site)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert {waste.kind for waste in swept.waste} == {"cache", "left_behind"}
    write(root / "cache" / "ab" / "old")
    assert sweep(site, keep_cache_days=None).waste == ()


async def test_a_dry_run_tells_and_deletes_nothing(api: httpx.AsyncClient, site: Site) -> None:
    ended = add_job(site, State.FAILED)
    unneeded = add_old_file(site, "u.jsonl")
    dry = (await api.post("/api/v1/gc", params={"dry_run": True})).json()
    assert left(site, ended) == {"ledger", "build", "out", "work"}
    assert unneeded in files(site)
    wet = (await api.post("/api/v1/gc")).json()
    assert (dry["dry_run"], wet["dry_run"]) == (True, False)
    names = {waste["name"] for waste in dry["waste"]}
    assert names == {f"ledger/{ended}", f"build/{ended}", f"work/{ended}/out", f"work/{ended}"} | {
        unneeded
    }
    assert names == {waste["name"] for waste in wet["waste"]}
    assert (left(site, ended), files(site)) == (set(), set())
    assert (await api.post("/api/v1/gc")).json()["waste"] == []


def test_only_admins_sweep() -> None:
    assert access.required("POST", "/api/v1/gc") == "admin"
