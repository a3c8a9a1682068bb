"""Verdicts on rows of a dataset that wait to become its next version: given one by one, over
pages and days, by whoever reads; `apply` makes the version of them (service/review.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import Session

from service import artifacts, rows
from service.problems import Fault, Problem, bad_input
from service.review import Review, Verdict, review, why_not
from service.site import Site
from service.tables import Artifact, PendingVerdict

MOST_ID = 600
"""Characters of a row's id that the table keeps."""


@dataclass(frozen=True)
class Tally:
    """How many verdicts wait."""

    accepted: int
    rejected: int

    @property
    def all(self) -> int:
        """Of both."""
        return self.accepted + self.rejected


def give(site: Site, dataset: Artifact, path: Path, verdict: Verdict) -> None:
    """Keep a verdict in the place of an earlier one on that row. Raises a 404 problem for a row
    that isn't there, 422 for a verdict that can't stand."""
    why = why_not(path, rows.one(path, verdict.id), verdict.accept)
    if len(verdict.id) > MOST_ID:
        why = f"its id is longer than {MOST_ID} characters"
    if why is not None:
        raise bad_input([Fault(f"row {verdict.id[:MOST_ID]}", why)], "That can't be said of it")
    kept = PendingVerdict(
        dataset_id=dataset.id, row_id=verdict.id, accept=verdict.accept, note=verdict.note
    )
    with site.sessions.writing.begin() as session:
        session.merge(kept)


def take_back(site: Site, dataset_id: str, row_id: str) -> None:
    """Forget the verdict on a row, if there is one."""
    _forget(site, dataset_id, PendingVerdict.row_id == row_id)


def discard(site: Site, dataset_id: str) -> None:
    """Forget all that were given on a dataset."""
    _forget(site, dataset_id, true())


def tally(session: Session, dataset_id: str) -> Tally:
    """How many wait for a dataset."""
    query = select(PendingVerdict.accept, func.count()).group_by(PendingVerdict.accept)
    counted = session.execute(query.where(PendingVerdict.dataset_id == dataset_id))
    found = {row[0]: row[1] for row in counted}
    return Tally(accepted=found.get(True, 0), rejected=found.get(False, 0))


def on_rows(session: Session, dataset_id: str, ids: Sequence[str]) -> dict[str, PendingVerdict]:
    """Row id -> the verdict that waits, of those among `ids` that have one."""
    query = select(PendingVerdict).where(PendingVerdict.dataset_id == dataset_id)
    return {one.row_id: one for one in session.scalars(query.where(PendingVerdict.row_id.in_(ids)))}


def listing(session: Session, dataset_id: str, after: str, limit: int) -> list[PendingVerdict]:
    """Those of a dataset by row id, behind `after`."""
    query = select(PendingVerdict).where(PendingVerdict.dataset_id == dataset_id)
    query = query.where(PendingVerdict.row_id > after).order_by(PendingVerdict.row_id)
    return list(session.scalars(query.limit(limit)))


def apply(site: Site, reference: str) -> Artifact:
    """Publish the next version of a dataset with all that wait for it, and forget them. Raises a
    422 problem where none do."""
    dataset = artifacts.find(site, "dataset", reference)
    with site.sessions.reading() as session:
        query = select(PendingVerdict).where(PendingVerdict.dataset_id == dataset.id)
        waiting = list(session.scalars(query.order_by(PendingVerdict.at)))
    if not waiting:
        raise Problem(422, "bad-input", "No verdicts", "Accept or reject rows first.")
    given = Review(
        verdicts=tuple(Verdict(id=one.row_id, accept=one.accept, note=one.note) for one in waiting)
    )
    made = review(site, dataset.id, given)
    # What was said meanwhile waits on.
    _forget(site, dataset.id, PendingVerdict.at <= waiting[-1].at)
    return made


def _forget(site: Site, dataset_id: str, which: ColumnElement[bool]) -> None:
    mine = delete(PendingVerdict).where(PendingVerdict.dataset_id == dataset_id, which)
    with site.sessions.writing.begin() as session:
        session.execute(mine)
