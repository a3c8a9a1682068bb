"""Backup and restore: one file that holds an installation, taken while it works.

The file is a tar, compressed with zstd: `backup.json`, the database as a SQLite file whatever it is
kept in, the secret of the data directory, work folders with their checkpoints, and all that lies
under the artifact root. The database is copied first: what it speaks of is there by then, and what
is written later is immutable and does no harm. Little is deleted while jobs work (the ledger of a
build that has just ended, say); what is missing for that reason is done again after the restore.

Artifacts in a bucket stay there: they are not in the file, and a restore looks for them in the
bucket of its own settings. A file that holds artifacts can be restored into a bucket.
"""

import errno
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import zstandard
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Table, func, insert, select, text

from prompts.record import Frozen
from service import db, disk, recovery
from service.problems import Fault, Problem, bad_input, conflict, disk_full
from service.secret import FILE as SECRET
from service.shared import Directory
from service.site import Site
from service.store import PREFIXES, Store
from service.tables import Base, now, utc

HEAD, DATABASE = "backup.json", "database.sqlite"
ARTIFACTS, WORK = "artifacts", "work"
FIRST = ("ledger", "build")
"""Folders of the artifact root that shrink while jobs end: copied right behind the database."""
LEFT_OUT = ("incoming",)
"""Uploads that nobody knows of yet."""
LEVEL = 3
ROWS_AT_ONCE = 1000


class Head(Frozen):
    """What a backup says of itself."""

    format: Literal[1] = 1
    at: datetime
    artifact_root: str
    """Where the artifacts lay."""


class Restored(Frozen):
    """What came back."""

    at: datetime
    """When the backup was made."""
    jobs: int
    unfinished: int
    """Jobs that go on when the stack is up."""
    missing: tuple[str, ...]
    """Ids of artifacts whose files the backup, or the bucket, does not hold, or not all."""


def backup(site: Site, target: Path) -> int:
    """Write the installation to `target`, whole or not at all; its size in bytes. Raises a problem
    if the file exists, or lies where it would hold itself."""
    _require_place(site, target)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    with disk.nothing_left_behind(draft):
        # It holds the secret: for its owner only.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
            with (
                compressor.stream_writer(file, closefd=False) as packed,
                tarfile.open(fileobj=packed, mode="w|") as tar,
            ):
                _write(site, tar, target.parent)
            file.flush()
            os.fsync(file.fileno())
        disk.publish(draft, target)
    return target.stat().st_size


def restore(site: Site, source: Path) -> Restored:
    """Fill a new installation from a backup. The database is written last and at once: what dies
    before may be started again. Raises a problem for an installation that holds something, or a
    file that is no whole backup."""
    _require_empty(site)
    with tempfile.TemporaryDirectory(dir=_folder(site.settings.data_dir)) as scratch:
        head = _unpack(site, source, Path(scratch))
        os.sync()
        if site.store.mirrored:
            _share(site.store)
        snapshot = db.make_engine(f"sqlite:///{scratch}/{DATABASE}")
        try:
            db.upgrade(snapshot)
            with snapshot.connect() as reader, site.sessions.writing.begin() as session:
                _copy_rows(reader, session.connection())
                counts = recovery.recover(session, site.store, head.at)
        finally:
            snapshot.dispose()
    return Restored(at=head.at, **counts)


def _share(store: Store) -> None:
    """Put into the bucket what was unpacked into its mirror."""
    for name in Directory().names(store.root):
        for inside in sorted((store.root / name).iterdir()):
            if name in PREFIXES:
                store.shared.publish(inside, disk.digests(inside))
            else:
                for file in disk.files(inside):
                    store.shared.push(file)


def _write(site: Site, tar: tarfile.TarFile, scratch: Path) -> None:
    head = Head(at=now(), artifact_root=site.store.shared.location(site.store.root))
    _add_bytes(tar, HEAD, head.model_dump_json(indent=2).encode())
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        _snapshot(site.sessions.engine, Path(folder) / DATABASE)
        _add_file(tar, DATABASE, Path(folder) / DATABASE)
    data = site.settings.data_dir
    _add_file(tar, SECRET, data / SECRET)
    _add_tree(tar, WORK, data / WORK)
    if not site.store.mirrored:
        _add_artifacts(tar, site.store.root)


def _add_artifacts(tar: tarfile.TarFile, root: Path) -> None:
    inside = [path.name for path in root.iterdir()] if root.is_dir() else []
    for name in sorted(inside, key=lambda name: (name not in FIRST, name)):
        if name not in LEFT_OUT:
            _add_tree(tar, f"{ARTIFACTS}/{name}", root / name)


def _snapshot(engine: Engine, path: Path) -> None:
    """The database at one moment, as a SQLite file."""
    target_engine = db.make_engine(f"sqlite:///{path}")
    if engine.dialect.name == "sqlite":
        _copy_pages(engine, target_engine)
        return
    db.upgrade(target_engine)
    at_one_moment = engine.execution_options(isolation_level="REPEATABLE READ")
    writing = target_engine.execution_options(writing=True)
    with at_one_moment.connect() as reader, writing.begin() as writer:
        _copy_rows(reader, writer)
    target_engine.dispose()


def _copy_pages(source: Engine, target: Engine) -> None:
    with closing(source.raw_connection()) as reader, closing(target.raw_connection()) as writer:
        pages: Any = reader.driver_connection
        pages.backup(writer.driver_connection)
    # What is still in its log goes into the file with the last connection.
    target.dispose()


def _copy_rows(reader: Connection, writer: Connection) -> None:
    for table in Base.metadata.sorted_tables:
        # By key: a job's parent comes before it, for ids are ordered by time.
        rows = select(table).order_by(*table.primary_key)
        found = reader.execution_options(yield_per=ROWS_AT_ONCE).execute(rows)
        for some in found.mappings().partitions():
            writer.execute(insert(table), [_in_utc(dict(row)) for row in some])
        if writer.dialect.name == "postgresql":
            _set_sequence(writer, table)


def _set_sequence(writer: Connection, table: Table) -> None:
    for column in table.primary_key:
        if column.autoincrement is True:
            highest = writer.scalar(select(func.max(column)))
            name = {"table": table.name, "column": column.name, "highest": highest or 1}
            sequence = "pg_get_serial_sequence(:table, :column)"
            writer.execute(text(f"SELECT setval({sequence}, :highest)"), name)


def _in_utc(row: dict[str, object]) -> dict[str, object]:
    # SQLite forgets the zone; PostgreSQL would take a bare time for one of its own.
    return {
        name: utc(value) if isinstance(value, datetime) else value for name, value in row.items()
    }


def _unpack(site: Site, source: Path, scratch: Path) -> Head:
    head: Head | None = None
    try:
        with _opened(source) as tar:
            for member in tar:
                if head is None:
                    head = _read_head(tar, member)
                    continue
                place, name = _place(site, scratch, member.name)
                if place is not None:
                    tar.extract(member.replace(name=name), place, filter="data")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(f"{site.store.root} has no room for what {source} holds.") from error
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise _unusable(source, f"it is damaged or cut off: {error}") from error
    if head is None:
        raise _unusable(source, "it is empty")
    return head


def _place(site: Site, scratch: Path, name: str) -> tuple[Path | None, str]:
    """Where a member goes, and under which name; None for what is not wanted."""
    top, _, inside = name.partition("/")
    data = site.settings.data_dir
    if name == DATABASE:
        return scratch, name
    if name == SECRET:
        return (None if site.settings.secret is not None else data), name
    if top == ARTIFACTS and inside:
        return _folder(site.store.root), inside
    return (_folder(data / WORK), inside) if top == WORK and inside else (None, name)


def _read_head(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Head:
    content = tar.extractfile(member) if member.name == HEAD else None
    if content is None:
        raise tarfile.ReadError("it is no backup of Retort")
    try:
        return Head.model_validate_json(content.read())
    except ValidationError as error:
        raise tarfile.ReadError("it was made by another release") from error


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    with source.open("rb") as file:
        unpacked = zstandard.ZstdDecompressor().stream_reader(file)
        with unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            yield tar


def _add_tree(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    for path, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            inside = (Path(path) / file).relative_to(folder).as_posix()
            _add_file(tar, f"{name}/{inside}", Path(path) / file)


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            tar.addfile(tar.gettarinfo(arcname=name, fileobj=file), file)
    except FileNotFoundError:
        return  # Deleted since it was listed; the module's docstring says what becomes of it.


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, BytesIO(content))


def _require_place(site: Site, target: Path) -> None:
    if target.exists():
        raise conflict("The file exists", f"{target} is there already; give another name.")
    if not target.parent.is_dir():
        raise _unusable(target, f"there is no directory {target.parent}")
    for held in (site.store.root, site.settings.data_dir / WORK):
        if target.absolute().is_relative_to(held):
            raise conflict("The backup would hold itself", f"Write it elsewhere than under {held}.")


def _require_empty(site: Site) -> None:
    with site.sessions.reading() as session:
        for name in ("jobs", "artifacts", "teachers", "schedules", "api_keys"):
            table = Base.metadata.tables[name]
            if session.scalar(select(func.count()).select_from(table)):
                detail = f"Its table {name} has rows: take a new data directory and database."
                raise conflict("The installation is not empty", detail)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _unusable(path: Path, why: str) -> Problem:
    return bad_input([Fault(str(path), why)], "The backup can't be used")
