"""Copies of checkpoints in a bucket, on a real S3 server: sent as they are written, brought by
whoever takes the training up elsewhere."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service import retention
from service.site import Site
from service.tables import State, now
from tests.service.s3 import Line, S3Server, bucket, line, s3_server
from tests.workers.conftest import new_site
from tests.workers.test_bucket import NewHost, host
from tests.workers.test_child import put
from trainer import checkpoint
from workers import checkpoints
from workers.lease import Lease

__all__ = ["bucket", "host", "line", "s3_server"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

DIGEST = "of this run"
Said = list[tuple[str, dict[str, Any]]]


def lease_of(epoch: int, job: str = "job") -> Lease:
    return Lease(job, None, epoch, "one", lease_s=60)


class Run:
    """A FAKE training on a host: seals checkpoints as the trainer does, and tells of them."""

    def __init__(self, site: Site, lease: Lease) -> None:
        self.site, self.lease, self.said = site, lease, Said()
        self.out = site.settings.data_dir / "work" / lease.job_id / "out"

    @property
    def directory(self) -> Path:
        return self.out / "checkpoints"

    def tell(self, type: str, data: dict[str, Any]) -> None:
        self.said.append((type, data))

    def write(self, *steps: int, keep: int = 2) -> None:
        """Train up to each of these steps, the one before it the best."""
        with checkpoints.copied(self.site, self.lease, self.out, self.tell) as hear:
            for step in steps:
                for name in (f"best-{step - 1}", f"checkpoint-{step}"):
                    self.seal(name)
                checkpoint.thin(self.directory, keep, DIGEST, step)
                hear("phase", {"name": "checkpoint", "detail": f"step {step}"})

    def seal(self, name: str, digest: str = DIGEST) -> Path:
        """Write one, whole."""
        written = self.directory / checkpoint.WRITING / name
        written.mkdir(parents=True)
        (written / "weights.pt").write_text(f"weights of {name}")
        checkpoint.seal(written, self.directory / name, digest)
        return self.directory / name

    def take_up(self) -> list[str]:
        """What is there to go on from, by name."""
        checkpoints.take_up(self.site, self.lease, self.out, self.tell)
        return sorted(path.name for path in self.directory.glob("*-*"))

    def warnings(self) -> list[str]:
        return [data["detail"] for type, data in self.said if type == "warning"]


def sealed(path: Path) -> bool:
    return checkpoint.problem(path, DIGEST) is None


def copies(s3_server: S3Server, bucket: str) -> set[str]:
    keys = [key.split("/") for key in s3_server.objects(bucket) if key.startswith("checkpoint/")]
    return {parts[2].removesuffix(".json") for parts in keys}


def test_the_newest_checkpoint_is_found_on_another_host(
    host: NewHost, s3_server: S3Server, bucket: str
) -> None:
    here, there = Run(host("here"), lease_of(epoch=1)), Run(host("there"), lease_of(epoch=2))
    here.write(5, 10)
    assert copies(s3_server, bucket) == {"000001-000000010"}
    assert there.take_up() == ["best-4", "best-9", "checkpoint-10"]
    assert all(sealed(path) for path in there.directory.glob("*-*"))
    assert [data["name"] for type, data in there.said if type == "phase"] == ["fetch"]
    there.write(15)
    assert copies(s3_server, bucket) == {"000002-000000015"}
    # The first host again: it has older ones of its own.
    assert "checkpoint-15" in here.take_up()
    assert here.warnings() == there.warnings() == []
    checkpoints.forget(here.site, here.lease.job_id)
    assert copies(s3_server, bucket) == set()


def test_the_checkpoint_just_written_is_sent_whatever_later_ones_lie_there(
    host: NewHost, s3_server: S3Server, bucket: str
) -> None:
    here, there = Run(host("here"), lease_of(epoch=1)), Run(host("there"), lease_of(epoch=2))
    here.seal("checkpoint-80", "of another run")
    (here.seal("checkpoint-90") / checkpoint.MANIFEST).unlink()
    here.write(5)
    assert copies(s3_server, bucket) == {"000001-000000005"}
    assert there.take_up() == ["best-4", "checkpoint-5"]


def test_what_is_here_is_not_brought_again(host: NewHost, line: Line) -> None:
    here = Run(host("here"), lease_of(epoch=1))
    here.write(5)
    (here.directory / "checkpoint-5" / "here").touch()
    assert here.take_up() == ["best-4", "checkpoint-5"]
    assert (here.directory / "checkpoint-5" / "here").exists()


def test_a_bucket_that_is_away_costs_a_warning_and_the_next_copy_is_sent(
    host: NewHost, line: Line, s3_server: S3Server, bucket: str
) -> None:
    here = Run(host("here"), lease_of(epoch=1))
    line.cut()
    here.write(5)
    assert ["no copy of a checkpoint was sent" in each for each in here.warnings()] == [True]
    line.mend()
    here.write(10)
    assert copies(s3_server, bucket) == {"000001-000000010"}
    assert len(here.warnings()) == 1


def test_a_copy_that_is_not_what_was_sent_is_not_used(
    host: NewHost, s3_server: S3Server, bucket: str
) -> None:
    here, there = Run(host("here"), lease_of(epoch=1)), Run(host("there"), lease_of(epoch=2))
    here.write(5)
    weights = "checkpoint/job/000001-000000005/checkpoint-5/weights.pt"
    there.site.store.shared.write(there.site.store.root / weights, b"something else")
    assert there.take_up() == []
    assert "is not what was published" in there.warnings()[0]
    assert there.warnings()[-1].endswith("it begins anew")


def test_a_holder_that_lost_its_lease_sends_nothing(
    host: NewHost, s3_server: S3Server, bucket: str
) -> None:
    here = Run(host("here"), lease_of(epoch=1))
    here.lease.lost.set()
    here.write(5)
    assert copies(s3_server, bucket) == set()


def test_beginning_anew_is_told_where_there_is_no_bucket_either(tmp_path: Path) -> None:
    site = new_site(tmp_path / "data")
    first, second = Run(site, lease_of(epoch=1)), Run(site, lease_of(epoch=2))
    assert first.take_up() == []
    assert first.warnings() == []
    assert second.take_up() == []
    assert second.warnings() == ["nothing of an earlier attempt is on this host: it begins anew"]
    first.write(5)
    assert not (site.store.root / "checkpoint").exists()
    assert second.take_up() == ["best-4", "checkpoint-5"]
    site.sessions.engine.dispose()


def test_copies_of_jobs_that_ended_without_a_model_go_by_age(
    host: NewHost, s3_server: S3Server, bucket: str
) -> None:
    site = host("here")
    old, young, open_one = (
        put(site, {"kind": "train"}, state=state, finished_at=ended)
        for state, ended in (
            (State.FAILED, now() - timedelta(days=40)),
            (State.FAILED, now() - timedelta(days=20)),
            (State.RUNNING, None),
        )
    )
    for job in (old, young, open_one):
        Run(site, lease_of(1, job)).write(5)
    retention.sweep(site, now(), dry_run=False)
    keys = [key.split("/") for key in s3_server.objects(bucket)]
    assert {parts[1] for parts in keys if parts[0] == "checkpoint"} == {young, open_one}
