"""Where a build's seeds come from, and their rows as lines of JSON; everything streams."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from prompts.seeds import SeedError
from prompts.spec import BuildSpec, RescoreBuild
from prompts.tables import (
    dataset_lines,
    file_lines,
    hub_lines,
    renamed,
    saved_lines,
    scored_lines,
)
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.store import Store
from service.tables import Artifact

HUB = "hub:"
"""Before a name that the `datasets` library knows."""


def name_source(site: Site, reference: str | Sequence[dict[str, Any]]) -> str:
    """A reference to seeds in the form that specs are stored with: an artifact's id, an absolute
    directory, or `hub:` and a name. Rows that stand in the spec become a file. Raises a 404 or 422
    problem."""
    if not isinstance(reference, str):
        return _keep_rows(site, reference)
    if reference.startswith(HUB):
        return reference
    if reference.startswith(("/", ".", "~")):
        return str(_directory(site, Path(reference).expanduser().absolute()))
    with site.sessions.reading() as session:
        return find_source(site.store, session, reference).id


def find_source(store: Store, session: Session, reference: str) -> Artifact:
    """The file or dataset that a name or id means. Raises a 404 problem."""
    try:
        return store.resolve(session, reference, "file")
    except Problem as problem:
        try:
            return store.resolve(session, reference, "dataset")
        except Problem:
            raise problem from None


def newest_dataset(session: Session, name: str) -> str | None:
    """Id of the newest version of a dataset; None if there is none."""
    named = select(Artifact.id).where(Artifact.kind == "dataset", Artifact.name == name)
    return session.scalar(named.order_by(Artifact.version.desc()).limit(1))


def source_lines(site: Site, spec: BuildSpec, reference: str | None = None) -> Iterator[bytes]:
    """The rows of a stored spec's seeds, or of its pool, as lines. Raises SeedError while it is
    read, and a 404 problem if its artifact is gone."""
    wanted = spec.seeds if reference is None else reference
    assert isinstance(wanted, str)
    if isinstance(spec, RescoreBuild):
        return _whole_rows(site, wanted)
    columns = spec.columns if wanted == spec.seeds else {}
    return renamed(_lines(site, wanted), columns) if columns else _lines(site, wanted)


def _whole_rows(site: Site, reference: str) -> Iterator[bytes]:
    """A dataset's rows; a file's as they are, for rows that a retry has kept in one."""
    if reference.startswith((HUB, "/")):
        raise SeedError(None, "a rescore build takes a dataset, by name or id")
    with site.sessions.reading() as session:
        artifact = find_source(site.store, session, reference)
    path = site.store.path(artifact)
    return scored_lines(path) if artifact.kind == "dataset" else file_lines(path, artifact.name)


def _lines(site: Site, reference: str) -> Iterator[bytes]:
    if reference.startswith(HUB):
        return hub_lines(reference.removeprefix(HUB))
    if reference.startswith("/"):
        return saved_lines(Path(reference))
    with site.sessions.reading() as session:
        artifact = find_source(site.store, session, reference)
    path = site.store.path(artifact)
    return dataset_lines(path) if artifact.kind == "dataset" else file_lines(path, artifact.name)


def _directory(site: Site, path: Path) -> Path:
    if not site.store.allow_server_paths:
        raise bad_input(
            [Fault("seeds", "directories of the server are not allowed; upload a file")]
        )
    if not path.is_dir():
        raise bad_input([Fault("seeds", f"there is no directory {path} on the server")])
    return path


def _keep_rows(site: Site, rows: Sequence[dict[str, Any]]) -> str:
    site.store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.store.root, prefix="rows-") as folder:
        path = Path(folder) / "rows.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        summary = {"purpose": "seeds", "rows": len(rows)}
        with site.sessions.writing.begin() as session:
            return site.store.publish(
                session, "file", path.name, path, summary=summary, inputs=[]
            ).id
