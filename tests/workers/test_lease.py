"""Claims, heartbeats and the watching of others, with a clock of our own."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from service.site import Site
from service.tables import Chunk, ChunkState, Job, State
from tests.workers.conftest import new_site
from workers.lease import (
    Heart,
    Key,
    Lease,
    beat,
    claim_chunk,
    claim_job,
    release,
    write_chunk_row,
    write_job,
)
from workers.watch import Watch, free_stale_chunks, free_stale_jobs


@dataclass
class Clock:
    """A monotonic clock that stands until it is moved."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def session(tmp_path: Path) -> Session:
    site: Site = new_site(tmp_path / "data")
    return site.sessions.writing()


def add_job(session: Session, job_id: str, kind: str) -> None:
    session.add(Job(id=job_id, kind=kind, name=job_id, spec={}, state=State.QUEUED))
    session.commit()


def add_chunk(session: Session, job_id: str) -> None:
    session.add(Chunk(job_id=job_id, number=0, first_row=0, rows=1, offset=0))
    session.commit()


def leased(session: Session) -> Lease:
    add_job(session, "b", "build")
    add_chunk(session, "b")
    lease = claim_chunk(session, "b", "one")
    assert lease is not None
    return lease


def test_a_job_is_claimed_once(session: Session) -> None:
    add_job(session, "t", "train")
    first = claim_job(session, "t", "one")
    assert first is not None
    assert claim_job(session, "t", "two") is None
    job = session.get_one(Job, "t", populate_existing=True)
    assert (job.state, job.owner, job.epoch) == (State.RUNNING, "one", first.epoch)


def test_a_chunk_is_claimed_once(session: Session) -> None:
    lease = leased(session)
    assert (lease.number, lease.epoch) == (0, 1)
    assert claim_chunk(session, "b", "two") is None


def test_a_released_chunk_is_claimed_with_a_higher_epoch(session: Session) -> None:
    lease = leased(session)
    assert release(session, lease)
    second = claim_chunk(session, "b", "two")
    assert second is not None
    assert second.epoch == lease.epoch + 1


def test_the_device_is_held_by_one_job_and_the_next_says_by_whom(session: Session) -> None:
    add_job(session, "s", "serve")
    add_job(session, "t", "train")
    add_job(session, "b", "build")
    serving = claim_job(session, "s", "one")
    assert serving is not None
    assert claim_job(session, "t", "two") is None
    waiting = session.get_one(Job, "t", populate_existing=True)
    assert waiting.state == State.QUEUED
    assert "serve job s" in (waiting.waiting_for or "")
    assert claim_job(session, "b", "three") is not None  # A build needs no device.
    assert claim_job(session, "t", "two", slots=2) is not None
    assert session.get_one(Job, "t", populate_existing=True).waiting_for is None


def test_a_standing_heartbeat_is_stale_only_when_watched_for_a_lease() -> None:
    clock = Clock(at=1000.0)
    watch = Watch(lease_s=10, clock=clock)
    assert not watch.stale(("b", 0), 1, 5)  # However old it is: this observer sees it first now.
    clock.at += 9.9
    assert not watch.stale(("b", 0), 1, 5)
    clock.at += 0.2
    assert watch.stale(("b", 0), 1, 5)
    assert not watch.stale(("b", 0), 1, 6)  # It moved: watched anew.
    clock.at += 9.9
    assert not watch.stale(("b", 0), 1, 6)


def test_what_a_dead_worker_held_is_taken_back(session: Session) -> None:
    lease = leased(session)
    add_job(session, "t", "train")
    held = claim_job(session, "t", "one")
    assert held is not None
    clock = Clock()
    watch = Watch(lease_s=10, clock=clock)
    assert free_stale_chunks(session, watch) == []
    assert free_stale_jobs(session, watch) == []
    clock.at = 11
    assert free_stale_chunks(session, watch) == ["b"]
    assert free_stale_jobs(session, watch) == ["t"]
    assert session.get_one(Job, "t", populate_existing=True).state == State.QUEUED
    second = claim_chunk(session, "b", "two")
    assert second is not None
    assert second.epoch > lease.epoch


def test_one_late_beat_keeps_the_lease(session: Session) -> None:
    lease = leased(session)
    clock = Clock()
    watch = Watch(lease_s=10, clock=clock)
    free_stale_chunks(session, watch)
    clock.at = 11
    beat(session, [lease])
    assert free_stale_chunks(session, watch) == []
    assert not lease.lost.is_set()


def test_a_beat_between_look_and_taking_keeps_the_lease(session: Session) -> None:
    lease = leased(session)

    class BeatenToIt(Watch):  # A fake: its observer is overtaken by the holder's beat.
        def stale(self, key: Key, epoch: int, heartbeat: int) -> bool:
            beat(session, [lease])
            return True

    assert free_stale_chunks(session, BeatenToIt()) == []
    beat(session, [lease])
    assert not lease.lost.is_set()


def test_a_zombies_writes_match_no_row(session: Session) -> None:
    zombie = leased(session)
    add_job(session, "t", "train")
    zombie_job = claim_job(session, "t", "one")
    assert zombie_job is not None
    clock = Clock()
    watch = Watch(lease_s=10, clock=clock)
    for at in (0, 11):
        clock.at = at
        free_stale_chunks(session, watch)
        free_stale_jobs(session, watch)
    heir = claim_chunk(session, "b", "two")
    heir_job = claim_job(session, "t", "two")
    assert heir is not None
    assert heir_job is not None
    assert not write_chunk_row(session, zombie, {"state": ChunkState.DONE, "path": "zombie"})
    assert not write_job(session, zombie_job, {"waiting_for": "zombie"})
    assert not release(session, zombie)
    beat(session, [zombie, zombie_job, heir, heir_job])
    assert [lease.lost.is_set() for lease in (zombie, zombie_job, heir, heir_job)] == [
        True,
        True,
        False,
        False,
    ]
    chunk = session.get_one(Chunk, ("b", 0), populate_existing=True)
    assert (chunk.state, chunk.path, chunk.owner) == (ChunkState.LEASED, None, "two")


def test_a_lease_is_not_held_once_its_beats_are_late() -> None:
    clock = Clock()
    lease = Lease("b", 0, 1, "one", lease_s=10, clock=clock)
    clock.at = 9
    assert lease.held()
    assert lease.remaining_s() == 1
    clock.at = 10
    assert not lease.held()
    assert not lease.lost.is_set()


@pytest.mark.slow
def test_a_heart_keeps_many_leases_alive(tmp_path: Path) -> None:
    site = new_site(tmp_path / "data")
    with site.sessions.writing() as session:
        add_job(session, "b", "build")
        for number in range(5):
            session.add(Chunk(job_id="b", number=number, first_row=0, rows=1, offset=0))
        session.commit()
        leases = [claim_chunk(session, "b", "one", lease_s=0.5) for _ in range(5)]
    with Heart(site.sessions.writing, lease_s=0.5) as heart:
        held = [heart.keep(lease) for lease in leases if lease is not None]
        before = [lease.renewed_at for lease in held]
        held[0].lost.wait(1.0)
        heart.drop(held[0])
    assert len(held) == 5
    assert all(lease.renewed_at > at for lease, at in zip(held, before, strict=True))
