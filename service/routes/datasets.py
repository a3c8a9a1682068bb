"""Datasets: import, list, show, look at rows, download."""

from typing import Annotated

from fastapi import Body, Query

from prompts.record import Record, Rejected
from prompts.split import SplitName
from service import artifacts, datasets
from service.datasets import DatasetImport
from service.routes.artifacts import artifact_router
from service.routes.deps import TheSite
from service.routes.examples import IMPORTS
from service.views import ArtifactView

router = artifact_router("dataset")

Skip = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/import", status_code=201)
def import_dataset(
    site: TheSite, wanted: Annotated[DatasetImport, Body(openapi_examples=IMPORTS)]
) -> ArtifactView:
    """Bring in a dataset made elsewhere. Its rows need `prompt` and `completion`."""
    return artifacts.show(site, "dataset", datasets.bring_in(site, wanted).id)


@router.get("/{reference}/rows")
def show_rows(
    site: TheSite,
    reference: str,
    split: SplitName = "train",
    skip: Skip = 0,
    limit: Limit = 20,
) -> list[Record]:
    """Accepted rows of a split."""
    return datasets.rows(site, reference, split, skip, limit)


@router.get("/{reference}/rejected")
def show_rejected(
    site: TheSite,
    reference: str,
    reason: str | None = None,
    skip: Skip = 0,
    limit: Limit = 20,
) -> list[Rejected]:
    """Rows that were not accepted, each with its reason and the raw completions."""
    return datasets.rejected(site, reference, reason, skip, limit)
