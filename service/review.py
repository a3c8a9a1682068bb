"""A person's verdicts on the rows of a dataset: a new version of it with them applied. And what
is different between two versions."""

import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping
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
from prompts.plan import content_hash
from prompts.record import Frozen, Message, Reason, Record, Rejected, as_rejected
from prompts.seen import Seen, digest16
from prompts.spec import AskedBuild, RescoreBuild, Shots, build_spec
from prompts.split import SPLITS, input_key, split_of
from prompts.template import compile_template
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
    `by_hand`. Raises a 404 problem, or 422 for ids that are unknown or come twice, and for what
    can't be accepted."""
    dataset = _dataset(site, reference)
    source = site.store.path(dataset)
    manifest = read_manifest(source)
    if manifest.signal is not None:
        raise bad_input([Fault("verdicts", SIGNAL)])
    verdicts = _by_id(given)
    site.store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.store.root, prefix="review-") as folder:
        target = Path(folder) / "dataset"
        _write(source, target, manifest, verdicts)
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


def _write(source: Path, target: Path, manifest: Manifest, verdicts: Mapping[str, Verdict]) -> None:
    recipe = _recipe(source)
    met: set[str] = set()
    rows = _judged(source, _spec(recipe), verdicts, met)
    chunk = write_chunk(target.with_name("chunk.parquet"), rows)
    unknown = sorted(verdicts.keys() - met)
    if unknown:
        raise bad_input([Fault("verdicts", f"there is no row {', '.join(unknown[:5])}")])
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


def _judged(
    source: Path, spec: AskedBuild | None, verdicts: Mapping[str, Verdict], met: set[str]
) -> Iterator[Record | Rejected]:
    for record in _accepted(source):
        verdict = verdicts.get(record.id)
        met |= {record.id} if verdict else set()
        rejects = verdict is not None and not verdict.accept
        yield as_rejected(record, Reason.BY_HAND, verdict.note) if verdict and rejects else record
    for rejected in read_rejected(source):
        verdict = verdicts.get(rejected.id)
        met |= {rejected.id} if verdict else set()
        yield _accepted_by_hand(rejected, spec) if verdict and verdict.accept else rejected


def why_not(source: Path, row: Record | Rejected, accept: bool) -> str | None:
    """Why a verdict on a row of the dataset at `source` can't stand; None if it can."""
    if read_manifest(source).signal is not None:
        return SIGNAL
    if not accept or isinstance(row, Record):
        return None
    return _not_acceptable(row, _spec(_recipe(source)))


def _not_acceptable(row: Rejected, spec: AskedBuild | None) -> str | None:
    if not row.prompt or not row.raw:
        return "nothing was answered"
    if row.finish_reason == "tool_calls":
        return "it calls functions, which its raw text alone doesn't hold; build it again"
    return None if spec is not None else "it wasn't built here: its split is unknown"


def _accepted_by_hand(row: Rejected, spec: AskedBuild | None) -> Record:
    why = _not_acceptable(row, spec)
    if why is not None or spec is None:
        raise bad_input([Fault("verdicts", f"row {row.id!r} can't be accepted: {why}")])
    completion = (Message(role="assistant", content=row.raw[-1]),)
    template = compile_template(spec.template, demonstrations=isinstance(spec, Shots))
    return Record(
        id=row.id,
        kind=row.kind,
        prompt=row.prompt,
        completion=completion,
        answer=row.answer,
        gold=row.gold,
        reasoning=row.reasoning,
        demo_ids=row.demo_ids,
        split=split_of(input_key(template, json.loads(row.seed)), spec.split),
        teacher=row.teacher,
        finish_reason=row.finish_reason or "stop",
        usage=row.usage,
        content_hash=content_hash(row.prompt, completion),
        seed=row.seed,
    )


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
