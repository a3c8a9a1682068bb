"""A person's verdicts on the rows of a dataset: a new version of it with them applied. And what
is different between two versions."""

import tempfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from prompts.dataset import (
    Manifest,
    assemble,
    read_manifest,
    read_rejected,
    read_rows,
    write_chunk,
)
from prompts.dataset.likeness import Judge
from prompts.record import Frozen, Reason, Record, Rejected, as_rejected
from prompts.seen import Seen, digest16
from prompts.spec import AskedBuild, RescoreBuild, build_spec
from prompts.split import SPLITS
from service.accepting import accepted_by_hand, leak_guard, not_acceptable
from service.datasets import summary_of
from service.problems import Fault, bad_input
from service.site import Site
from service.tables import Artifact

SHOWN = 20
SIGNAL = "a dataset with teacher signal can't be reviewed yet"


class Verdict(Frozen):
    """What a person says of a row."""

    id: str = Field(min_length=1)
    accept: bool
    note: str = Field("", max_length=2000)
    """Why: kept as a rejected row's detail."""


class Review(Frozen):
    """Verdicts on rows of one version."""

    verdicts: tuple[Verdict, ...] = Field(min_length=1, max_length=100_000)


class Difference(Frozen):
    """What the accepted rows of a version have in place of another's."""

    old: str
    """Id of the version."""
    new: str
    same: int
    added: int
    removed: int
    changed: int
    """Rows with the same id and another prompt or completion."""
    added_ids: tuple[str, ...]
    """The first of them."""
    removed_ids: tuple[str, ...]
    changed_ids: tuple[str, ...]


def review(site: Site, reference: str, given: Review) -> Artifact:
    """Publish a new version with the verdicts applied; what a person rejected keeps the reason
    `by_hand`. All verdicts are applied or none: a version is what its person meant. Raises a 404
    problem, or 422 which names each verdict that can't stand: ids that are unknown or come twice,
    rows that can't be accepted."""
    dataset = _dataset(site, reference)
    source = site.store.path(dataset)
    manifest = read_manifest(source)
    if manifest.signal is not None:
        raise bad_input([Fault("verdicts", SIGNAL)])
    verdicts = _by_id(given)
    recipe = _recipe(source)
    spec = _spec(recipe)
    accepts = any(verdict.accept for verdict in given.verdicts)
    guard = leak_guard(site, spec) if accepts else None
    places = {verdict.id: place for place, verdict in enumerate(given.verdicts)}
    applied = _Applied(spec, guard, verdicts, places)
    site.store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.store.root, prefix="review-") as folder:
        target = Path(folder) / "dataset"
        _write(source, target, manifest, recipe, applied)
        with site.sessions.writing.begin() as session:
            return site.store.publish(
                session,
                "dataset",
                dataset.name,
                target,
                summary=summary_of(target) | {"reviewed": len(verdicts)},
                inputs=[dataset.id],
            )


def difference(site: Site, old: str, new: str) -> Difference:
    """Compare the accepted rows of two datasets by id and content; streams. Raises a 404
    problem."""
    before, after = _dataset(site, old), _dataset(site, new)
    ids, contents = Seen(), array("Q")
    for row in _accepted(site.store.path(before)):
        ids.first(digest16(row.id), len(contents))
        contents.append(int(row.content_hash[:16], 16))
    met = bytearray(len(contents))
    added, changed, removed = _Some(), _Some(), _Some()
    for row in _accepted(site.store.path(after)):
        place = ids.first(digest16(row.id), len(contents))
        if place is None or place >= len(contents):
            added.note(row.id)
            continue
        met[place] = 1
        if contents[place] != int(row.content_hash[:16], 16):
            changed.note(row.id)
    for place, row in enumerate(_accepted(site.store.path(before))):
        if not met[place]:
            removed.note(row.id)
    return Difference(
        old=before.id,
        new=after.id,
        same=len(contents) - removed.count - changed.count,
        added=added.count,
        removed=removed.count,
        changed=changed.count,
        added_ids=tuple(added.ids),
        removed_ids=tuple(removed.ids),
        changed_ids=tuple(changed.ids),
    )


class _Some:
    """Counts ids and keeps the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] = []

    def note(self, row: str) -> None:
        self.count += 1
        if len(self.ids) < SHOWN:
            self.ids.append(row)


def _write(
    source: Path, target: Path, manifest: Manifest, recipe: Mapping[str, Any], applied: "_Applied"
) -> None:
    chunk = write_chunk(target.with_name("chunk.parquet"), applied.rows(source))
    applied.check()
    totals = {
        name: total
        for name, total in manifest.totals.items()
        if name not in ("prompt_tokens", "completion_tokens")
    }
    assemble(
        target,
        [chunk.path],
        recipe=recipe,
        seeds=chunk.rows,
        name=manifest.name,
        deduplicate=False,
        totals=totals,
    )


@dataclass
class _Applied:
    """Verdicts on their way through the rows of a dataset, and what is wrong with them."""

    spec: AskedBuild | None
    guard: Judge | None
    verdicts: Mapping[str, Verdict]
    places: Mapping[str, int]
    """Of each row's verdict in the request."""
    met: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def rows(self, source: Path) -> Iterator[Record | Rejected]:
        """All rows, those that a verdict is on changed by it."""
        for record in _accepted(source):
            verdict = self._on(record)
            rejects = verdict is not None and not verdict.accept
            yield (
                as_rejected(record, Reason.BY_HAND, verdict.note) if verdict and rejects else record
            )
        for rejected in read_rejected(source):
            verdict = self._on(rejected)
            yield self._accepted(rejected) if verdict and verdict.accept else rejected

    def check(self) -> None:
        """Raises a 422 problem for verdicts that can't be followed."""
        for row in self.verdicts:
            if row not in self.met:
                self.faults.append(self._fault(row, f"there is no row {row}"))
        if not self.faults:
            return
        wrong = len(self.faults)
        title = f"{wrong:,} of {len(self.verdicts):,} verdicts can't stand: none was applied"
        more = [Fault("verdicts", f"… and {wrong - SHOWN:,} more")] if wrong > SHOWN else []
        raise bad_input([*self.faults[:SHOWN], *more], title)

    def _fault(self, row: str, problem: str) -> Fault:
        return Fault(f"verdicts.{self.places[row]}", problem)

    def _on(self, row: Record | Rejected) -> Verdict | None:
        verdict = self.verdicts.get(row.id)
        self.met |= {row.id} if verdict else set()
        return verdict

    def _accepted(self, row: Rejected) -> Record | Rejected:
        why, spec = not_acceptable(row, self.spec), self.spec
        if why is None and spec is not None:
            record = accepted_by_hand(row, spec)
            leak = self.guard(record.model_dump(mode="json")) if self.guard else None
            if leak is None:
                return record
            why = leak.detail
        self.faults.append(self._fault(row.id, f"row {row.id!r} can't be accepted: {why}"))
        return row


def why_not(source: Path, row: Record | Rejected, accept: bool) -> str | None:
    """Why a verdict on a row of the dataset at `source` can't stand; None if it can."""
    if read_manifest(source).signal is not None:
        return SIGNAL
    if not accept or isinstance(row, Record):
        return None
    return not_acceptable(row, _spec(_recipe(source)))


def _recipe(source: Path) -> dict[str, Any]:
    return yaml.safe_load((source / "recipe.yaml").read_text(encoding="utf-8")) or {}


def _spec(recipe: Mapping[str, object]) -> AskedBuild | None:
    try:
        spec = build_spec.validate_python(recipe.get("build"))
    except ValidationError:
        return None
    return None if isinstance(spec, RescoreBuild) else spec


def _by_id(given: Review) -> dict[str, Verdict]:
    verdicts = {verdict.id: verdict for verdict in given.verdicts}
    if len(verdicts) < len(given.verdicts):
        raise bad_input([Fault("verdicts", "a row comes twice")])
    return verdicts


def _accepted(source: Path) -> Iterator[Record]:
    for split in SPLITS:
        yield from read_rows(source, split)


def _dataset(site: Site, reference: str) -> Artifact:
    with site.sessions.reading() as session:
        return site.store.resolve(session, reference, "dataset")
