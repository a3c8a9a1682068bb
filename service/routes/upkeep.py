"""Looking after the installation: what is old and needed by nothing. Needs the scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Query

from service import retention
from service.retention import Sweep
from service.routes.deps import PROBLEMS, TheSite
from service.tables import now

router = APIRouter(tags=["upkeep"], responses=PROBLEMS)


@router.post("/gc")
def collect_garbage(
    site: TheSite,
    dry_run: Annotated[bool, Query(description="Only say what would be deleted.")] = False,
) -> Sweep:
    """Delete what the settings RETORT_KEEP_…_DAYS give up, as the beat does each hour."""
    return retention.sweep(site, now(), dry_run=dry_run)
