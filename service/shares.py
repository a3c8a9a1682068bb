"""How all who ask a teacher share it: a registered limit holds over jobs and processes.

Parties are the drains of builds, batches, and the API processes that pass chats on. Jobs get
max-min fair shares, a job's drains even parts of its share; an API process counts as a job. What a
party was granted stands in SQL; it may take more only of what nobody else holds, so the limit holds
while shares move. A drain or batch that died holds its grant until its lease is taken back, an API
process until the moment to which it last renewed it.
"""

import math
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, or_, select, union_all
from sqlalchemy.orm import Session

from service.tables import Chunk, ChunkState, Grant, Job, State, Teacher, now


def take_share(
    session: Session,
    teacher: str,
    owner: str,
    job_id: str,
    wanted: int,
    in_flight: int,
    until: datetime | None = None,
) -> int:
    """How many requests this party may have under way at a teacher now; the caller commits.

    `wanted` is what its job could use in all, `in_flight` what is under way here. `until` renews
    the grant of a party that holds no lease.
    """
    row = session.scalars(
        select(Teacher).where(Teacher.name == teacher).with_for_update()
    ).one_or_none()
    if row is None or row.max_in_flight is None:
        return wanted
    _forget_dead(session, teacher)
    grants = {
        grant.owner: grant
        for grant in session.scalars(select(Grant).where(Grant.teacher == teacher))
    }
    mine = grants.pop(owner, None)
    if mine is None:
        mine = Grant(teacher=teacher, owner=owner, job_id=job_id, wanted=wanted, granted=0)
        session.add(mine)
    mine.wanted, mine.until = wanted, until
    share = my_share(row.max_in_flight, [*grants.values(), mine], mine)
    free = row.max_in_flight - sum(grant.granted for grant in grants.values())
    share = max(0, min(share, free))
    mine.granted = max(share, min(in_flight, mine.granted))
    session.flush()
    return share


def give_share_back(session: Session, owner: str) -> None:
    """A party asks no more; commits."""
    session.execute(delete(Grant).where(Grant.owner == owner))
    session.commit()


def my_share(limit: int, grants: list[Grant], mine: Grant) -> int:
    """One party's part of its job's share."""
    wants = {grant.job_id: grant.wanted for grant in grants}
    of_job = fair_shares(limit, wants)[mine.job_id]
    owners = sorted(grant.owner for grant in grants if grant.job_id == mine.job_id)
    whole, rest = divmod(of_job, len(owners))
    return whole + (owners.index(mine.owner) < rest)


def fair_shares(limit: int, wants: Mapping[str, int]) -> dict[str, int]:
    """Max-min fair: nobody gets more than he wants, and nobody less than another who got more than
    he needed. A limit below the number of jobs serves the oldest (ids are ordered by time)."""
    shares: dict[str, int] = {}
    left = limit
    for place, job in enumerate(sorted(wants, key=lambda job: (wants[job], job))):
        shares[job] = min(wants[job], math.ceil(left / (len(wants) - place)))
        left -= shares[job]
    return shares


def _forget_dead(session: Session, teacher: str) -> None:
    drains = select(Chunk.owner).where(Chunk.state == ChunkState.LEASED, Chunk.owner.is_not(None))
    batches = select(Job.owner).where(
        Job.kind == "batch", Job.state == State.RUNNING, Job.owner.is_not(None)
    )
    unleased = Grant.until.is_(None) & Grant.owner.not_in(union_all(drains, batches))
    session.execute(
        delete(Grant)
        .where(Grant.teacher == teacher, or_(unleased, Grant.until < now()))
        .execution_options(synchronize_session=False)
    )
