"""Datasets: list, rows as a reader wants them, rejects by reason, card, download; and uploads."""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from prompts.record import Record, Rejected
from service import artifacts, errors, rows, uploads
from service.dashboard import drawing, reading
from service.dashboard.page import page, page_router, see
from service.multipart import first_file
from service.problems import bad_input
from service.routes.deps import TheSite
from service.rows import RowPage, Wanted
from service.uploads import Purpose

router = page_router()

PAGE = 50
FILES = 20
ROWS = 10
Part = Literal["train", "validation", "test", "rejected"]
CARD_BYTES = 200_000


@router.get("/datasets")
def list_datasets(
    request: Request,
    site: TheSite,
    name: str = "",
    cursor: str | None = None,
    files: str | None = None,
) -> HTMLResponse:
    """Datasets and uploaded files, newest first; `files` is the cursor of those."""
    found = artifacts.listing(site, "dataset", name=name or None, before=cursor, limit=PAGE)
    uploaded = artifacts.listing(site, "file", name=None, before=files, limit=FILES)
    return page(
        request,
        "datasets.html",
        found=found,
        files=uploaded.artifacts,
        more_files=uploaded.next,
        files_cursor=files,
        name=name,
        cursor=cursor,
    )


@router.get("/datasets/{reference}")
def show_dataset(
    request: Request,
    site: TheSite,
    reference: str,
    part: Part = "train",
    kind: str = "",
    reason: str = "",
    q: str = "",
    cursor: str = "",
) -> HTMLResponse:
    """A dataset's rows, with filter and search."""
    head, path = reading.head(site, reference)
    wanted = _wanted(kind, reason if part == "rejected" else "", q, cursor)
    found: RowPage[Record] | RowPage[Rejected] = (
        rows.rejected(path, wanted) if part == "rejected" else rows.accepted(path, part, wanted)
    )
    return page(
        request,
        "dataset.html",
        **head,
        rows=[reading.shown(row) for row in found.rows],
        verdicts=reading.verdicts_on(site, head["dataset"].id, found.rows),
        more=found.next,
        part=part,
        filters={"kind": kind, "reason": reason, "q": q},
        cursor=cursor,
    )


@router.get("/datasets/{reference}/facts")
def show_facts(request: Request, site: TheSite, reference: str) -> HTMLResponse:
    """A dataset's counts, charts and card."""
    head, path = reading.head(site, reference)
    reasons = sorted(
        head["dataset"].summary.get("reasons", {}).items(), key=lambda each: (-each[1], each[0])
    )
    return page(
        request,
        "dataset_facts.html",
        **head,
        reasons=reasons,
        most=max((count for _, count in reasons), default=1),
        chart=drawing.length_chart(rows.lengths(path)),
        confidence=drawing.confidence_chart(rows.confidences(path)),
        card=_card(path),
        recipe=_text(path / "recipe.yaml"),
    )


@router.post("/files")
async def upload(
    request: Request,
    site: TheSite,
    name: Annotated[str, Query(min_length=1, max_length=200)],
    purpose: Purpose = "seeds",
) -> Response:
    """Take a file in, checked line by line. It comes alone, its token in a header: it streams."""
    content_type = request.headers.get("content-type", "")
    stream = request.stream()
    if content_type.startswith("multipart/form-data"):
        file = await uploads.receive(site, first_file(stream, content_type), name, purpose)
    else:
        file = await uploads.receive(site, stream, name, purpose)
    return see(f"/datasets#{file.id}")


def _wanted(kind: str, reason: str, q: str, cursor: str) -> Wanted:
    given = {"kind": kind, "reason": reason, "search": q, "after": cursor}
    try:
        kept = {name: value for name, value in given.items() if value}
        return Wanted.model_validate(kept | {"limit": ROWS})
    except ValidationError as error:
        raise bad_input(list(errors.faults(error.errors(), None)), "No such filter") from error


def _card(path: Path) -> str:
    """The card without its YAML head."""
    text = _text(path / "README.md")
    if text.startswith("---\n"):
        text = text[4:].partition("\n---\n")[2]
    return text.strip()


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(CARD_BYTES)
