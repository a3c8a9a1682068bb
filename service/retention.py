"""What is deleted by age: ledgers, checkpoints, logs, the completion cache, files nobody refers to.

Nothing is touched that a dataset, model or report was made from, or that a schedule or a job that
has not ended refers to; a part of a recipe has not ended before the recipe has. Datasets, models
and reports themselves are never deleted, not even those without a row: the database may be one
that was restored from before they were made. What a crash left of an upload goes after a day. Only
this host's `data_dir` is looked at, and its mirror of a bucket.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session, aliased

from prompts.record import Frozen
from service import artifacts, disk
from service.shared import Directory
from service.site import Site
from service.store import PREFIXES
from service.tables import FINISHED, Artifact, Job, Schedule, utc

Kind = Literal["ledger", "checkpoints", "logs", "cache", "file", "left_behind", "mirror"]

LEFT_BEHIND = timedelta(days=1)
"""Longer than any upload or publication takes."""
T = TypeVar("T")

AT_ONCE = 500
"""Ids in one question to SQL."""


class Waste(Frozen):
    """Something that nobody needs any more."""

    kind: Kind
    name: str
    """Of a file: its id. Else the path, below the artifact root or the data directory."""
    bytes: int


class Sweep(Frozen):
    """What was deleted, or would be."""

    dry_run: bool
    bytes: int
    waste: tuple[Waste, ...]


def sweep(site: Site, at: datetime, *, dry_run: bool) -> Sweep:
    """Delete what the settings' ages say. Any number may sweep at once, at any time."""
    found = tuple(_swept(site, at, dry_run))
    return Sweep(dry_run=dry_run, bytes=sum(waste.bytes for waste in found), waste=found)


def _swept(site: Site, at: datetime, dry_run: bool) -> Iterator[Waste]:
    for kind, path in _old(site, at):
        yield _measured(site, kind, path)
        if not dry_run:
            _remove(site, kind, path)
    for file in _unneeded_files(site, at):
        yield Waste(kind="file", name=file.id, bytes=file.bytes)
        if not dry_run:
            artifacts.remove(site, file)


def _old(site: Site, at: datetime) -> Iterator[tuple[Kind, Path]]:
    """Paths by what they are; each is looked at when it is its turn, and may be gone by then."""
    keep, root, shared = site.settings, site.store.root, site.store.shared
    for name in ("ledger", "build"):
        names = shared.names(root / name)
        for folder in _of_ended_jobs(site, root / name, names, at, keep.keep_ledgers_days):
            yield "ledger", folder
    copies = root / "checkpoint"  # workers/checkpoints.py
    names = shared.names(copies)
    for folder in _of_ended_jobs(site, copies, names, at, keep.keep_checkpoints_days):
        yield "checkpoints", folder
    work = site.settings.data_dir / "work"
    names = Directory().names(work)
    for folder in _of_ended_jobs(site, work, names, at, keep.keep_checkpoints_days):
        if (folder / "out").is_dir():
            yield "checkpoints", folder / "out"
    for folder in _of_ended_jobs(site, work, names, at, keep.keep_logs_days):
        yield "logs", folder
    if keep.keep_cache_days is not None:
        long_ago = at - timedelta(days=keep.keep_cache_days)
        for cached in shared.found(root / "cache"):
            if cached.modified < long_ago:
                yield "cache", cached.path
    for path in _older((root / "incoming").glob("*"), at, LEFT_BEHIND):
        yield "left_behind", path
    for artifacts_of in PREFIXES:
        for path in shared.unpublished(root / artifacts_of, at - LEFT_BEHIND):
            yield "left_behind", path
    if site.store.mirrored and keep.keep_mirror_days is not None:
        yield from _unread(site, at - timedelta(days=keep.keep_mirror_days))


def _unread(site: Site, long_ago: datetime) -> Iterator[tuple[Kind, Path]]:
    """What this host's mirror holds of artifacts that it did not read for long, and that nothing
    under way needs."""
    with site.sessions.reading() as session:
        needed = _needed_now(session)
    for kind in PREFIXES:
        for folder in (site.store.root / kind).glob("*"):
            old = folder.is_dir() and folder.stat().st_mtime < long_ago.timestamp()
            if old and folder.name not in needed:
                yield "mirror", folder


def _remove(site: Site, kind: Kind, path: Path) -> None:
    if kind == "mirror" or not path.is_relative_to(site.store.root):
        disk.remove(path)
    else:
        site.store.shared.remove(path)


def _of_ended_jobs(
    site: Site, parent: Path, names: list[str], at: datetime, days: float | None
) -> Iterator[Path]:
    """Those of the folders that are named by jobs that ended so long ago."""
    if days is None:
        return
    long_ago = at - timedelta(days=days)
    for ids in _cut(names):
        with site.sessions.reading() as session:
            ended = set(session.scalars(_ended(ids, long_ago)))
        yield from (parent / name for name in ids if name in ended)


def _ended(ids: list[str], before: datetime) -> Any:
    recipe = aliased(Job)
    over = or_(Job.parent_id.is_(None), recipe.state.in_(FINISHED))
    ended = Job.state.in_(FINISHED) & (Job.finished_at < before)
    joined = select(Job.id).outerjoin(recipe, recipe.id == Job.parent_id)
    return joined.where(Job.id.in_(ids), ended, over)


def _unneeded_files(site: Site, at: datetime) -> list[Artifact]:
    days = site.settings.keep_files_days
    if days is None:
        return []
    with site.sessions.reading() as session:
        needed = _referred_to(session)
        files = select(Artifact).where(Artifact.kind == "file")
        return [
            file
            for file in session.scalars(files)
            if utc(file.created_at) < at - timedelta(days=days)
            and needed.isdisjoint((file.id, file.name, f"{file.name}@{file.version}"))
        ]


def _referred_to(session: Session) -> set[str]:
    """Every text that may name a file: what the rest was made from, and all that stands in the
    specs of jobs and schedules that may run yet."""
    made: ColumnElement[bool] = Artifact.kind != "file"
    needed = {
        name for names in session.scalars(select(Artifact.inputs).where(made)) for name in names
    }
    return needed | _needed_now(session)


def _needed_now(session: Session) -> set[str]:
    """All texts in the specs of jobs and schedules that may run yet."""
    needed: set[str] = set()
    unfinished = select(Job.spec, Job.result).where(Job.state.not_in(FINISHED))
    for spec, result in session.execute(unfinished):
        needed.update(_texts(spec), _texts(result))
    for spec in session.scalars(select(Schedule.spec)):
        needed.update(_texts(spec))
    return needed


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        # A directory of the server may be that of a file.
        yield from value.split("/")
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _older(paths: Iterator[Path], at: datetime, age: timedelta) -> Iterator[Path]:
    """Those that were last written so long ago."""
    for path in paths:
        try:
            if path.stat().st_mtime < (at - age).timestamp():
                yield path
        except FileNotFoundError:
            continue  # Another sweep was quicker.


def _measured(site: Site, kind: Kind, path: Path) -> Waste:
    shared = kind != "mirror" and path.is_relative_to(site.store.root)
    found = (site.store.shared if shared else Directory()).found(path)
    return Waste(kind=kind, name=_shown(site, path), bytes=sum(each.bytes for each in found))


def _shown(site: Site, path: Path) -> str:
    for root in (site.store.root, site.settings.data_dir):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return str(path)


def _cut(rows: list[T]) -> Iterator[list[T]]:
    return (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE))
