"""Accepting and rejecting rows by hand: verdicts wait beside the rows until a version is made."""

from typing import Annotated, Any, Literal

from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import artifacts, errors, rows, verdicts
from service.dashboard import reading
from service.dashboard.page import page, page_router, see
from service.pages import cut
from service.problems import Problem, bad_input
from service.review import Verdict
from service.routes.deps import TheSite
from service.site import Site
from service.store import light

router = page_router()

PAGE = 50
Say = Literal["accept", "reject", "nothing"]
RowId = Annotated[str, Form(min_length=1, max_length=verdicts.MOST_ID)]


@router.get("/datasets/{reference}/row")
def show_row(
    request: Request, site: TheSite, reference: str, id: Annotated[str, Query(min_length=1)]
) -> HTMLResponse:
    """One row by its id, however it ended."""
    head, path = reading.head(site, reference)
    row = rows.one(path, id)
    waiting = reading.verdicts_on(site, head["dataset"].id, [row])
    return page(request, "dataset_row.html", **head, row=reading.shown(row), verdicts=waiting)


@router.get("/datasets/{reference}/verdicts")
def list_verdicts(
    request: Request, site: TheSite, reference: str, cursor: str = ""
) -> HTMLResponse:
    """All that wait to become a version."""
    head, _ = reading.head(site, reference)
    with site.sessions.reading() as session:
        found = verdicts.listing(session, head["dataset"].id, cursor, PAGE + 1)
    waiting, more = cut(found, PAGE, lambda verdict: verdict.row_id)
    return page(request, "verdicts.html", **head, waiting=waiting, more=more, cursor=cursor)


@router.post("/datasets/{reference}/verdicts")
def give(
    request: Request,
    site: TheSite,
    reference: str,
    row: RowId,
    say: Annotated[Say, Form()],
    note: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Say something of a row, or take it back. Scripts get the part of the page that changed."""
    dataset, path = artifacts.directory(site, "dataset", reference, light)
    by_script = "hx-request" in request.headers
    problem = None
    try:
        if say == "nothing":
            verdicts.take_back(site, dataset.id, row)
        else:
            verdicts.give(site, dataset, path, _verdict(row, say == "accept", note))
    except Problem as refused:
        if not by_script:
            raise
        problem = refused
    if not by_script:
        return see(f"/datasets/{dataset.id}/verdicts")
    return page(request, "verdict_given.html", **_said(site, reference, row), problem=problem)


@router.post("/datasets/{reference}/verdicts/apply")
def apply(site: TheSite, reference: str) -> Response:
    """Make a version of them, and show what is different in it."""
    old = artifacts.show(site, "dataset", reference)
    made = verdicts.apply(site, old.id)
    return see(f"/datasets/{made.id}/diff?base={old.id}")


@router.post("/datasets/{reference}/verdicts/discard")
def discard(site: TheSite, reference: str) -> Response:
    """Forget them."""
    dataset = artifacts.show(site, "dataset", reference)
    verdicts.discard(site, dataset.id)
    return see(f"/datasets/{dataset.id}")


def _verdict(row: str, accept: bool, note: str) -> Verdict:
    try:
        return Verdict(id=row, accept=accept, note=note.strip())
    except ValidationError as error:
        faults = list(errors.faults(error.errors(), None))
        raise bad_input(faults, "That can't be said of it") from error


def _said(site: Site, reference: str, row: str) -> dict[str, Any]:
    head, path = reading.head(site, reference)
    found = rows.one(path, row)
    waiting = reading.verdicts_on(site, head["dataset"].id, [found])
    return head | {"row": reading.shown(found), "verdicts": waiting}
