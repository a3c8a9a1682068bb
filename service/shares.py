"""How drains share a teacher: a registered limit holds over all jobs and workers.

Jobs get max-min fair shares of it, a job's drains even parts of its share. What a drain was granted
stands in SQL; it may take more only of what nobody else holds, so the limit holds while shares
move. A drain that died holds its grant until its chunks are taken back.
"""

import math
from collections.abc import Mapping

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.tables import Chunk, ChunkState, Grant, Teacher


def take_share(
    session: Session, teacher: str, owner: str, job_id: str, wanted: int, in_flight: int
) -> int:
    """How many requests this drain may have under way at a teacher now; the caller commits.

    `wanted` is what its job could use in all, `in_flight` what is under way here.
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
    mine.wanted = wanted
    share = my_share(row.max_in_flight, [*grants.values(), mine], mine)
    free = row.max_in_flight - sum(grant.granted for grant in grants.values())
    share = max(0, min(share, free))
    mine.granted = max(share, min(in_flight, mine.granted))
    session.flush()
    return share


def give_share_back(session: Session, owner: str) -> None:
    """A drain has ended; commits."""
    session.execute(delete(Grant).where(Grant.owner == owner))
    session.commit()


def my_share(limit: int, grants: list[Grant], mine: Grant) -> int:
    """One drain's part of its job's share."""
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
    at_work = select(Chunk.owner).where(Chunk.state == ChunkState.LEASED, Chunk.owner.is_not(None))
    session.execute(
        delete(Grant)
        .where(Grant.teacher == teacher, Grant.owner.not_in(at_work))
        .execution_options(synchronize_session=False)
    )
