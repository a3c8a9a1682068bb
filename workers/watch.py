"""Watching other workers' leases, and taking back what the dead held."""

import time
from collections.abc import Callable

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.tables import Chunk, ChunkState, Job, State
from workers.lease import LEASE_S, Key, write


class Watch:
    """An observer: remembers when it last saw each heartbeat move, on its own clock."""

    def __init__(self, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic):
        self.lease_s = lease_s
        self._clock = clock
        self._seen: dict[Key, tuple[int, int, float]] = {}

    def stale(self, key: Key, epoch: int, heartbeat: int) -> bool:
        """Whether this observer has watched that counter stand still for a lease's length."""
        at = self._clock()
        seen = self._seen.get(key)
        if seen is None or seen[:2] != (epoch, heartbeat):
            if len(self._seen) > 10_000:
                self._forget_old(at)
            self._seen[key] = (epoch, heartbeat, at)
            return False
        return at - seen[2] >= self.lease_s

    def _forget_old(self, at: float) -> None:
        # A counter that was not looked at for so long belongs to a lease that is no more.
        old = at - 100 * self.lease_s
        self._seen = {key: seen for key, seen in self._seen.items() if seen[2] > old}


def free_stale_chunks(session: Session, watch: Watch, job_id: str | None = None) -> list[str]:
    """Take back chunk leases that this observer saw standing still. Their jobs' ids; commits."""
    leased = select(Chunk).where(Chunk.state == ChunkState.LEASED)
    chunks = session.scalars(leased.where(Chunk.job_id == job_id) if job_id else leased).all()
    freed = []
    for chunk in chunks:
        if not watch.stale((chunk.job_id, chunk.number), chunk.epoch, chunk.heartbeat):
            continue
        take = update(Chunk).where(
            Chunk.job_id == chunk.job_id, Chunk.number == chunk.number, Chunk.epoch == chunk.epoch
        )
        still = Chunk.heartbeat == chunk.heartbeat, Chunk.state == ChunkState.LEASED
        pending = {"state": ChunkState.PENDING, "owner": None, "epoch": Chunk.epoch + 1}
        if write(session, take.where(*still), pending):
            freed.append(chunk.job_id)
    session.commit()
    return freed


def free_stale_jobs(session: Session, watch: Watch) -> list[str]:
    """Take back job leases that this observer saw standing still. Their ids; commits."""
    held = select(Job).where(Job.state == State.RUNNING, Job.owner.is_not(None))
    freed = []
    for job in session.scalars(held).all():
        if not watch.stale((job.id, None), job.epoch, job.heartbeat):
            continue
        take = update(Job).where(Job.id == job.id, Job.epoch == job.epoch)
        still = Job.heartbeat == job.heartbeat, Job.state == State.RUNNING
        state = State.RUNNING if job.kind == "build" else State.QUEUED
        if write(
            session, take.where(*still), {"owner": None, "state": state, "epoch": Job.epoch + 1}
        ):
            freed.append(job.id)
    session.commit()
    return freed
