"""Artifacts: immutable files and directories under one root, described by rows in SQL.

    <root>/dataset/ds-…/  <root>/model/model-…/  <root>/report/report-…/  <root>/file/file-…/<name>

A directory is complete before its row exists; one without a row is a crash's orphan, never read.
Where the root is a bucket, these are the paths of this host's mirror (service/shared.py).
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session

from service import disk
from service.ids import Prefix, make_id
from service.problems import Fault, Problem, bad_input, not_found
from service.shared import Directory, Shared, Wanted
from service.tables import Artifact

ArtifactKind = Literal["dataset", "model", "report", "file"]

PREFIXES: dict[ArtifactKind, Prefix] = {
    "dataset": "ds",
    "model": "model",
    "report": "report",
    "file": "file",
}

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NEAR_NAMES_LOOKED_AT = 1000
HEAVY = re.compile(r"signal/|.*\.(safetensors|bin|pt)$")


def everything(name: str) -> bool:
    """All files of an artifact."""
    return True


def light(name: str) -> bool:
    """What pages and checks read: neither weights nor stored signal."""
    return HEAVY.match(name) is None


@dataclass(frozen=True)
class Upload:
    """A received file that has no row yet."""

    path: Path
    name: str
    written: disk.Written


class Store:
    """The artifact root. Methods that take a session work in the caller's transaction."""

    def __init__(
        self,
        root: Path,
        min_free_bytes: int,
        upload_limit_bytes: int,
        allow_server_paths: bool,
        shared: Shared | None = None,
    ) -> None:
        self.root = root
        self.shared = shared or Directory()
        self.allow_server_paths = allow_server_paths
        self._min_free_bytes = min_free_bytes
        self._upload_limit_bytes = upload_limit_bytes

    def publish(
        self,
        session: Session,
        kind: ArtifactKind,
        name: str,
        source: Path,
        *,
        summary: dict[str, Any],
        inputs: list[str],
        job_id: str | None = None,
    ) -> Artifact:
        """Copy the directory (or file) `source` into the store and insert its row, as the next
        version of `name`. `source` stays as it is. The caller commits.

        A task that runs twice publishes once: the second call for the same (job_id, kind, name)
        returns the first one's artifact. Call it first in a transaction, so that SQLite's write
        lock is not held while files are copied. Raises a 507 problem if the disk is full, and
        `StorageError`.
        """
        artifact_id = make_id(PREFIXES[kind])
        target = self.root / kind / artifact_id
        target.mkdir(parents=True)
        with disk.nothing_left_behind(target):
            disk.require_space(self.root, disk.size(source), self._min_free_bytes)
            inside = target / source.name if source.is_file() else target
            written = disk.copy(source, inside)
            self.shared.publish(target, written.files)
            artifact = _insert(
                session,
                Artifact(
                    id=artifact_id,
                    kind=kind,
                    name=name,
                    path=inside.relative_to(self.root).as_posix(),
                    bytes=written.bytes,
                    sha256=written.sha256,
                    summary=summary,
                    inputs=inputs,
                    job_id=job_id,
                ),
            )
        if artifact.id != artifact_id:
            self.shared.remove(target)
        return artifact

    async def receive(self, stream: AsyncIterator[bytes], name: str) -> Upload:
        """Write an upload to a temporary file. Raises 413 beyond the limit, 507 on a full disk;
        then nothing is left behind. `keep` or `discard` it afterwards."""
        folder = self.root / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        disk.require_space(folder, 0, self._min_free_bytes)
        target = folder / make_id("file")
        written = await disk.save(stream, target, self._upload_limit_bytes)
        return Upload(target, file_name(name), written)

    def keep(self, session: Session, upload: Upload, summary: dict[str, Any]) -> Artifact:
        """Make a received file an artifact of kind `file`. The caller commits."""
        artifact_id = upload.path.name
        final = self.root / "file" / artifact_id / upload.name
        disk.publish(upload.path, final)
        with disk.nothing_left_behind(final.parent):
            whole = disk.FileDigest(upload.written.bytes, upload.written.sha256)
            self.shared.publish(final.parent, {upload.name: whole})
        return _insert(
            session,
            Artifact(
                id=artifact_id,
                kind="file",
                name=upload.name,
                path=final.relative_to(self.root).as_posix(),
                bytes=upload.written.bytes,
                sha256=upload.written.sha256,
                summary=summary,
                inputs=[],
            ),
        )

    def discard(self, upload: Upload) -> None:
        """Delete a received file that turned out to be unusable."""
        disk.remove(upload.path)

    def path(self, artifact: Artifact, wanted: Wanted = everything) -> Path:
        """Where an artifact lies: the directory, or for an uploaded file the file itself. From a
        bucket the files that are `wanted` are brought here first; raises `StorageError`, and a 507
        problem if the disk has no room for them."""
        self.shared.fetch(self.folder(artifact), wanted)
        return self.root / artifact.path

    def let_go(self, reader: Session) -> None:
        """End a reading session's transaction before a download: writers to SQLite, heartbeats
        among them, wait for readers."""
        if self.mirrored:
            reader.commit()

    def folder(self, artifact: Artifact) -> Path:
        """The directory that holds all there is of an artifact."""
        place = self.root / artifact.path
        return place.parent if artifact.kind == "file" else place

    @property
    def mirrored(self) -> bool:
        """Whether the root is a bucket, and `root` its mirror on this host."""
        return not isinstance(self.shared, Directory)

    def location(self, artifact: Artifact) -> str:
        """Where an artifact lies, for a person."""
        return self.shared.location(self.root / artifact.path)

    def resolve(self, session: Session, reference: str, kind: ArtifactKind) -> Artifact:
        """The artifact that an id, `name` (its newest version) or `name@version` means. Raises a
        404 problem that lists near names."""
        artifact = session.get(Artifact, reference)
        if artifact is None or artifact.kind != kind:
            artifact = session.scalars(_by_name(reference, kind)).first()
        if artifact is None:
            raise not_found(kind, reference, _known(session, kind))
        return artifact

    def name_model(self, session: Session, reference: str) -> str:
        """A model reference in the form that specs are stored with: an artifact's id, an absolute
        directory, or a hub name. Takes an id, `name`, `name@version`, a directory of the server, or
        `org/name`. Raises a 422 problem for a directory that isn't a model, 404 for an unknown
        name.
        """
        directory = Path(reference).expanduser().absolute()
        looks_like_a_path = reference.startswith((".", "/", "~")) or reference.count("/") > 1
        if looks_like_a_path or ("/" in reference and directory.is_dir()):
            return str(self._model_directory(directory))
        if HUB_NAME.fullmatch(reference):
            return reference
        return self.resolve(session, reference, "model").id

    def locate_model(self, session: Session, reference: str, wanted: Wanted = everything) -> str:
        """What to load for a model reference (see `name_model`): a directory, or a hub name."""
        name = self.name_model(session, reference)
        artifact = session.get(Artifact, name)
        if artifact is None:
            return name
        self.let_go(session)
        return str(self.path(artifact, wanted))

    def _model_directory(self, directory: Path) -> Path:
        if not self.allow_server_paths:
            raise _bad_model(directory, "directories of the server are not allowed here; use an id")
        if not directory.is_dir():
            raise _bad_model(directory, "there is no such directory")
        if not (directory / "config.json").is_file():
            raise _bad_model(directory, "this directory isn't a model: it holds no config.json")
        return directory


def _insert(session: Session, artifact: Artifact) -> Artifact:
    # One publisher per name at a time: SQLite's writers queue up anyway, PostgreSQL needs a lock.
    if session.get_bind().dialect.name == "postgresql":
        key = {"key": f"{artifact.kind}/{artifact.name}"}
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), key)
    same = select(Artifact).where(Artifact.kind == artifact.kind, Artifact.name == artifact.name)
    if artifact.job_id is not None:
        earlier = session.scalars(same.where(Artifact.job_id == artifact.job_id)).first()
        if earlier is not None:
            return earlier
    newest = session.scalar(select(func.max(same.subquery().c.version)))
    artifact.version = (newest or 0) + 1
    session.add(artifact)
    session.flush()
    return artifact


def _by_name(reference: str, kind: ArtifactKind) -> Select[Artifact]:
    name, at, version = reference.rpartition("@")
    named = select(Artifact).where(Artifact.kind == kind)
    if at and version.isdigit():
        return named.where(Artifact.name == name, Artifact.version == int(version))
    return named.where(Artifact.name == reference).order_by(Artifact.version.desc())


def _known(session: Session, kind: ArtifactKind) -> list[str]:
    rows = session.execute(
        select(Artifact.id, Artifact.name)
        .where(Artifact.kind == kind)
        .order_by(Artifact.created_at.desc())
        .limit(NEAR_NAMES_LOOKED_AT)
    ).all()
    return list(dict.fromkeys(word for row in rows for word in (row.name, row.id)))


def file_name(name: str) -> str:
    """A name that stays inside its directory on any file system."""
    cleaned = re.sub(r"[^\w.-]+", "_", Path(name).name).strip(".")
    return cleaned[:150] or "upload"


def _bad_model(directory: Path, message: str) -> Problem:
    return bad_input([Fault(str(directory), message)], "Not a model")
