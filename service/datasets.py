"""Datasets: what lists show of them, and how those made elsewhere come in."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from prompts.dataset import (
    DatasetError,
    import_dataset,
    read_manifest,
)
from prompts.record import Frozen, Kind
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.tables import Artifact


class DatasetImport(Frozen):
    """A dataset made elsewhere: JSONL, Parquet, a directory of the `datasets` library, or one of
    Retort's own."""

    name: str = Field(min_length=1, max_length=200)
    """What it is called here; each import of a name is a new version."""
    kind: Kind = Kind.IF
    """What its rows teach."""
    file: str | None = None
    """Id of an uploaded file."""
    path: str | None = None
    """A file or directory of the server, if the settings allow that."""

    @model_validator(mode="after")
    def _has_one_source(self) -> "DatasetImport":
        if (self.file is None) == (self.path is None):
            raise ValueError("give either `file`, the id of an upload, or `path`")
        return self


def summary_of(path: Path) -> dict[str, Any]:
    """What lists show of the dataset at `path`, from its manifest. Raises DatasetError."""
    manifest = read_manifest(path)
    return {
        **manifest.counts.model_dump(),
        "splits": manifest.splits,
        "reasons": manifest.reasons,
        "flags": manifest.flags,
        "kinds": list(manifest.kinds),
        "teachers": list(manifest.teachers),
        "teacher_revisions": list(manifest.teacher_revisions),
        "totals": manifest.totals,
    }


def bring_in(site: Site, wanted: DatasetImport) -> Artifact:
    """Import a dataset into the form that the trainer reads, and publish it. Raises a 422 problem
    that says what is wrong with the source."""
    source, inputs = _source(site, wanted)
    return publish_import(site, source, wanted, inputs)


def publish_import(site: Site, source: Path, wanted: DatasetImport, inputs: list[str]) -> Artifact:
    """Import what lies at `source`, made of the artifacts `inputs`. Raises a 422 problem."""
    site.store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.store.root, prefix="import-") as folder:
        try:
            dataset = _in_our_form(source, Path(folder) / "dataset", wanted)
            summary = summary_of(dataset)
        except DatasetError as error:
            raise _refused(wanted, str(error)) from error
        with site.sessions.writing.begin() as session:
            return site.store.publish(
                session, "dataset", wanted.name, dataset, summary=summary, inputs=inputs
            )


def _in_our_form(source: Path, target: Path, wanted: DatasetImport) -> Path:
    if (source / "manifest.json").is_file():
        return source
    import_dataset(source, target, kind=wanted.kind, name=wanted.name)
    return target


def _source(site: Site, wanted: DatasetImport) -> tuple[Path, list[str]]:
    if wanted.file is not None:
        with site.sessions.reading() as session:
            file = site.store.resolve(session, wanted.file, "file")
        return site.store.path(file), [file.id]
    path = Path(wanted.path or "").expanduser().absolute()
    if not site.store.allow_server_paths:
        raise _refused(wanted, "paths of the server are not allowed here; upload the file")
    if not path.exists():
        raise _refused(wanted, f"there is no {path} on the server")
    return path, []


def _refused(wanted: DatasetImport, message: str) -> Problem:
    location = "path" if wanted.file is None else "file"
    return bad_input([Fault(location, message)], "The dataset can't be imported")
