"""The tick that makes lost doorbells harmless: beat calls it, and the API process too.

It judges nobody dead: that is for whoever claims (workers/lease.py). It only rings.
"""

import random
from collections import Counter

from sqlalchemy import select

from service import chain, jobs, once, pausing, timetable
from service.broker import QUEUES
from service.site import Site
from service.tables import Job, State, now


def tick(site: Site) -> int:
    """Submit what schedules ask for, ring again for queued jobs and running builds, and advance
    recipes. Returns the number of doorbells rung: none for a queue that already holds as many as
    there are jobs for it."""
    timetable.tick(site, now())
    once.forget_old(site, now())
    # A worker that is rung for one of these asks the teacher for a token.
    awaits_teacher = (Job.state == State.PAUSED) & (Job.reason == pausing.TEACHER)
    with site.sessions.reading() as session:
        open_jobs = list(
            session.execute(
                select(Job.id, Job.kind, Job.state, Job.cancel_requested, Job.pause_requested)
                .where(Job.state.in_([State.QUEUED, State.RUNNING]) | awaits_teacher)
                .order_by(Job.id)
            )
        )
    for job in open_jobs:
        if job.state == State.QUEUED and job.cancel_requested:
            jobs.cancel(site, job.id)  # Its worker died before it could stop it.
        elif job.state == State.QUEUED and job.pause_requested:
            pausing.settle(site, job.id)  # Its worker ended before it could pause it.
        elif job.kind == "recipe":
            chain.advance(site, job.id)
    waiting = [
        (job.kind, job.id, _rings(job.state))
        for job in open_jobs
        if job.kind != "recipe"
        and not job.pause_requested
        and (job.state == State.QUEUED or job.kind == "build")
    ]
    return _ring(site, waiting)


def _rings(state: State) -> int:
    """How often to ring for a job. A running build has work for any number of workers, and idle
    ones take what is sent in turns: were it always as much, the same ones would get the ticks, and
    the same ones the bells, for as long as the build runs."""
    return random.randint(1, 2) if state == State.RUNNING else 1


def _ring(site: Site, waiting: list[tuple[str, str, int]]) -> int:
    wanted = Counter(QUEUES[kind] for kind, _, _ in waiting)
    depths = {queue: site.broker.depth(queue) for queue in wanted}
    rung = 0
    for kind, job_id, rings in waiting:
        depth = depths[QUEUES[kind]]
        if depth is not None and depth < wanted[QUEUES[kind]]:
            rung += sum(site.broker.ring(kind, job_id) for _ in range(rings))
    return rung
