"""Datasets: import, list, show, look at rows, download."""

from typing import Annotated

from fastapi import Body, Query

from prompts.record import Kind, Record, Rejected
from prompts.split import SplitName
from service import artifacts, datasets, rows
from service.datasets import DatasetImport
from service.review import Difference, Review, difference, review
from service.routes.artifacts import artifact_router
from service.routes.deps import TheSite
from service.routes.examples import IMPORTS, REVIEWS
from service.rows import RowPage, Wanted
from service.store import light
from service.views import ArtifactView

router = artifact_router("dataset")

Cursor = Annotated[str | None, Query(max_length=40, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=rows.MOST_ROWS)]
Search = Annotated[
    str | None,
    Query(alias="q", max_length=500, description="Text in prompts, completions, answers or ids."),
]


@router.post("/import", status_code=201)
def import_dataset(
    site: TheSite, wanted: Annotated[DatasetImport, Body(openapi_examples=IMPORTS)]
) -> ArtifactView:
    """Bring in a dataset made elsewhere. Its rows need `prompt` and `completion`."""
    return artifacts.show(site, "dataset", datasets.bring_in(site, wanted).id)


@router.post("/{reference}/review", status_code=201)
def review_dataset(
    site: TheSite, reference: str, given: Annotated[Review, Body(openapi_examples=REVIEWS)]
) -> ArtifactView:
    """Accept or reject rows by hand: a new version of the dataset with the verdicts applied."""
    return artifacts.show(site, "dataset", review(site, reference, given).id)


@router.get("/{reference}/diff")
def compare_datasets(
    site: TheSite,
    reference: str,
    base: Annotated[str, Query(description="The version to compare with, such as name@1.")],
) -> Difference:
    """What a version's accepted rows have in place of another's."""
    return difference(site, base, reference)


@router.get("/{reference}/rows")
def show_rows(
    site: TheSite,
    reference: str,
    split: SplitName = "train",
    kind: Kind | None = None,
    search: Search = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> RowPage[Record]:
    """Accepted rows of a split, in order, filtered and searched."""
    _, path = artifacts.directory(site, "dataset", reference, light)
    return rows.accepted(path, split, Wanted(kind=kind, search=search, after=cursor, limit=limit))


@router.get("/{reference}/rejected")
def show_rejected(
    site: TheSite,
    reference: str,
    reason: Annotated[str | None, Query(max_length=64)] = None,
    kind: Kind | None = None,
    search: Search = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> RowPage[Rejected]:
    """Rows that were not accepted, each with its reason and the raw completions."""
    _, path = artifacts.directory(site, "dataset", reference, light)
    wanted = Wanted(kind=kind, reason=reason, search=search, after=cursor, limit=limit)
    return rows.rejected(path, wanted)
