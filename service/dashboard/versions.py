"""What a version of a dataset has in place of another's: counts, and rows of each kind."""

from pathlib import Path
from typing import Any, Literal

from fastapi import Request
from fastapi.responses import HTMLResponse

from prompts.record import Record, Rejected
from service import artifacts, rows
from service.dashboard import reading
from service.dashboard.page import page, page_router
from service.review import Difference, difference
from service.routes.deps import TheSite
from service.site import Site
from service.store import light
from service.views import ArtifactView

router = page_router()

VERSIONS = 50
Show = Literal["added", "removed", "changed"]
SHOWS: tuple[Show, ...] = ("added", "removed", "changed")


@router.get("/datasets/{reference}/diff")
def show_difference(
    request: Request, site: TheSite, reference: str, base: str = "", show: Show | None = None
) -> HTMLResponse:
    """Compare with `base`: another version, or another dataset; the version before if none is
    named."""
    head, path = reading.head(site, reference)
    dataset: ArtifactView = head["dataset"]
    named = artifacts.listing(
        site, "dataset", name=dataset.name, before=None, limit=VERSIONS
    ).artifacts
    others = [one for one in named if one.id != dataset.id]
    base = base.strip() or next((one.id for one in others if one.version < dataset.version), "")
    found = difference(site, base, dataset.id) if base else None
    old = artifacts.show(site, "dataset", base) if base else None
    chosen = show or _most_telling(found)
    return page(
        request,
        "dataset_diff.html",
        **head,
        others=others,
        old=old,
        found=found,
        show=chosen,
        shows=SHOWS,
        samples=_samples(site, found, old, path, chosen) if found and old else [],
    )


def _most_telling(found: Difference | None) -> Show:
    """The first kind of change that there is any of."""
    if found is None:
        return "added"
    return next((show for show in SHOWS if _count(found, show)), "added")


def _count(found: Difference, show: Show) -> int:
    return {"added": found.added, "removed": found.removed, "changed": found.changed}[show]


def _samples(
    site: Site, found: Difference, old: ArtifactView, new_path: Path, show: Show
) -> list[dict[str, Any]]:
    """The first rows of a kind of change: each as it was, and as it is; None where it isn't."""
    ids = {
        "added": found.added_ids,
        "removed": found.removed_ids,
        "changed": found.changed_ids,
    }[show]
    _, old_path = artifacts.directory(site, "dataset", old.id, light)
    before, after = rows.some(old_path, ids), rows.some(new_path, ids)
    return [
        {"id": id, "before": _side(before.get(id)), "after": _side(after.get(id))} for id in ids
    ]


def _side(row: Record | Rejected | None) -> dict[str, Any] | None:
    return None if row is None else reading.shown(row)
