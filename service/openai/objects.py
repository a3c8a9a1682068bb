"""What all of OpenAI's objects have in common: ids, moments, lists."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query

from service.tables import utc

Object = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=1000)]
JOB = "job-"
BATCH = "batch_"
TUNING = "ftjob-"


def outside(job_id: str, prefix: str) -> str:
    """A job's id as OpenAI's clients see it: `job-x` is `batch_x` or `ftjob-x`."""
    return prefix + job_id.removeprefix(JOB)


def inside(identity: str, prefix: str) -> str:
    """The job's id. One with another prefix is no job's: it is then not found."""
    return JOB + identity.removeprefix(prefix) if identity.startswith(prefix) else identity


def seconds(moment: datetime | None) -> int | None:
    """Unix time."""
    return None if moment is None else int(utc(moment).timestamp())


def listed(found: Sequence[Object], limit: int) -> Object:
    """A page. `found` holds one more than `limit` if there are more."""
    page = list(found[:limit])
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > limit,
    }
