"""An installation in a temporary directory, and a fake teacher beside it."""

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from prompts.dataset import read_manifest, read_rejected, read_rows
from prompts.record import Record, Rejected
from prompts.spec import CotBuild
from service import db, jobs
from service.durable import Write, write_durably
from service.settings import Settings
from service.site import Site, open_site
from service.spec import BuildJob
from service.tables import Artifact, Job, Teacher
from workers import build
from workers.watch import Watch
from workers.window import spare

STUB = Path(__file__).with_name("stub_teacher.py")
LEASE_S = 2.0


@dataclass(frozen=True)
class StubTeacher:
    """A handle on the fake teacher's process."""

    url: str
    process: subprocess.Popen[bytes]

    def stats(self) -> dict[str, Any]:
        with urlopen(f"{self.url}/stats") as response:
            return dict(json.load(response))

    def faults(self, **told: Any) -> None:
        body = json.dumps(told).encode()
        urlopen(Request(f"{self.url}/faults", data=body)).close()


def dying_disk(files: int) -> Write:
    """A FAKE: a disk that breaks for good after so many files, as a ledger is written to."""
    written: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        if path.parent.parent.parent.parent.name == "ledger" and len(written) == files:
            raise OSError(errno.EIO, "Input/output error")
        written.append(path)
        write_durably(path, data)

    return write


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubTeacher]:
    with fake_teacher(tmp_path / "stub.port") as started:
        yield started


@contextmanager
def fake_teacher(port_file: Path) -> Iterator[StubTeacher]:
    """A fake teacher in a process of its own, killed at the end."""
    process = subprocess.Popen([sys.executable, str(STUB), "--port-file", str(port_file)])
    try:
        wait_for(port_file.exists)
        yield StubTeacher(f"http://127.0.0.1:{port_file.read_text()}", process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh installation on SQLite; its broker is away, which costs nothing but latency."""
    opened = new_site(tmp_path / "data")
    yield opened
    opened.sessions.engine.dispose()


def new_site(data_dir: Path, **changes: Any) -> Site:
    """An installation of its own."""
    settings = {"data_dir": data_dir, "lease_s": LEASE_S, "reconcile_s": 0.5}
    opened = open_site(Settings(**settings | changes))
    db.upgrade(opened.sessions.engine)
    return opened


def register(site: Site, url: str, **changes: Any) -> None:
    """Make the fake teacher known as `stub`."""
    facts = {"name": "stub", "base_url": f"{url}/v1", "served_model": "stub"}
    with site.sessions.writing.begin() as session:
        session.merge(Teacher(**facts | {"probe": {"ok": True, "revision": "r1"}} | changes))


def sums(rows: int) -> list[dict[str, Any]]:
    """Seeds that ask for sums; all questions differ."""
    return [
        {"id": f"s{i:05d}", "question": f"What is {i} plus {i % 13}?", "answer": str(i + i % 13)}
        for i in range(rows)
    ]


def upload(site: Site, seeds: list[dict[str, Any]]) -> str:
    """Put seeds into the store; their id."""
    path = site.settings.data_dir / "seeds.jsonl"
    path.write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    with site.sessions.writing.begin() as session:
        return site.store.publish(session, "file", path.name, path, summary={}, inputs=[]).id


def submit(site: Site, seeds: list[dict[str, Any]], **fields: Any) -> str:
    """Submit a chain-of-thought build over these seeds; its id."""
    spec = CotBuild.model_validate(
        {"kind": "cot", "teacher": "stub", "seeds": upload(site, seeds), "chunk_rows": 32} | fields
    )
    return jobs.submit(site, BuildJob(kind="build", build=spec)).id


def run_build(site: Site, job_id: str, write: Write | None = None) -> None:
    """What a worker does of a build now."""
    # It watches with the patience that the leases ask for: one of less takes over from itself.
    build.run(site, job_id, Watch(site.settings.lease_s), write)


def get_job(site: Site, job_id: str) -> Job:
    with site.sessions.reading() as session:
        return jobs.get(session, job_id)


def dataset_of(site: Site, job_id: str) -> Path:
    """Where the job's dataset lies."""
    with site.sessions.reading() as session:
        artifact = session.get_one(Artifact, get_job(site, job_id).result["dataset"])
    return site.store.path(artifact)


def rows_of(path: Path) -> list[Record | Rejected]:
    """All rows of a dataset, however they ended."""
    splits = ("train", "validation", "test")
    accepted = [row for split in splits for row in read_rows(path, split)]
    return [*accepted, *read_rejected(path)]


def check_each_once(path: Path, rows: int) -> None:
    """Every seed ended, once."""
    found = sorted(row.id for row in rows_of(path))
    assert found == [f"s{i:05d}" for i in range(rows)]
    counts = read_manifest(path).counts
    assert counts.accepted + counts.rejected + counts.not_needed == counts.seeds == rows


def lost_at_most(window: int) -> int:
    """Requests that a kill makes a build ask again: those under way, and answers that were not on
    the disk yet."""
    return window + spare(window)


def wait_for(true: Callable[[], Any], seconds: float = 60.0, every_s: float = 0.05) -> None:
    """Wait until something holds; a bound for hung tests, not a measurement."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(every_s)
