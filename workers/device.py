"""Who has the device: GPU, or a small CPU, on which one job at a time computes."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.tables import Job, State

DEVICE_KINDS = frozenset({"serve", "train", "compress", "report"})
"""Kinds of jobs that occupy a device slot while they run."""


def needs_device(job: Job) -> bool:
    """Whether a job occupies a device slot while it runs: a build does with its teacher in
    process."""
    if job.kind == "build":
        return bool(job.spec.get("build", {}).get("in_process"))
    return job.kind in DEVICE_KINDS


def device_holders(session: Session, job: Job, slots: int) -> str | None:
    """Who has the device that this job needs, in words; None if it may have it.

    Of two builds that run already (one was paused meanwhile) the one submitted first goes first.
    """
    running = Job.state == State.RUNNING, Job.kind.in_({*DEVICE_KINDS, "build"}), Job.id != job.id
    found = session.scalars(select(Job).where(*running).order_by(Job.started_at))
    holders = [
        other
        for other in found
        if needs_device(other)
        and (job.state != State.RUNNING or other.kind != "build" or other.id < job.id)
    ]
    if len(holders) < slots:
        return None
    names = ", ".join(f"{holder.kind} job {holder.id} ({holder.name})" for holder in holders)
    return f"the device: {names} has it (RETORT_DEVICE_SLOTS={slots})"
