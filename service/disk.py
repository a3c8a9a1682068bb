"""Writing to disk so that it lasts: copies are hashed on the way and fsynced, and a full disk
leaves nothing behind."""

import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from prompts.dataset.files import file_sha256, sync
from service.problems import Problem, disk_full

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileDigest:
    """What a file must be like."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """What a copy put on the disk."""

    bytes: int
    sha256: str
    """Of the file; of a directory, its manifest.json, or the list of its files' digests."""
    files: dict[str, FileDigest] = field(default_factory=dict)
    """Of a directory, by the path inside; of a file, by its name."""


def require_space(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Raise a 507 problem unless `needed_bytes` fit and `reserve_bytes` stay free."""
    free = shutil.disk_usage(folder).free
    if free - needed_bytes < reserve_bytes:
        raise disk_full(
            f"{folder} has {free:,} bytes free; {needed_bytes:,} are needed and "
            f"{reserve_bytes:,} are kept in reserve (RETORT_MIN_FREE_BYTES). Free some space."
        )


@contextmanager
def nothing_left_behind(path: Path) -> Iterator[None]:
    """Remove `path` if the block fails; a full disk becomes a 507 problem."""
    try:
        yield
    except BaseException as error:
        remove(path)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(f"The disk of {path.parent} filled up while writing.") from error
        raise


def remove(path: Path) -> None:
    """Delete a file or directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files under a directory."""
    return sum(file.stat().st_size for file in files(path))


def copy(source: Path, target: Path) -> Written:
    """Copy a file or directory to `target`, which must not exist, and fsync all of it.

    Symbolic links are followed: an artifact must not depend on what lies outside of it.
    """
    if source.is_file():
        file = _copy_file(source, target)
        return Written(file.bytes, file.sha256, {target.name: file})
    copied: dict[str, FileDigest] = {}
    for path in files(source):
        inside = path.relative_to(source)
        copied[inside.as_posix()] = _copy_file(path, target / inside)
    for folder, _, _ in os.walk(target):
        sync(Path(folder))
    listing = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(copied.items()))
    whole = hashlib.sha256(listing.encode()).hexdigest()
    if "manifest.json" in copied:
        whole = copied["manifest.json"].sha256
    return Written(sum(file.bytes for file in copied.values()), whole, copied)


async def save(stream: AsyncIterator[bytes], target: Path, limit_bytes: int) -> Written:
    """Write a stream to `target` and fsync it. Raises a 413 problem beyond `limit_bytes`."""
    digest, total = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with nothing_left_behind(target), target.open("xb") as file:
        async for block in stream:
            total += len(block)
            if total > limit_bytes:
                raise too_large(limit_bytes)
            digest.update(block)
            file.write(block)
        _sync(file)
    return Written(total, digest.hexdigest())


def too_large(limit_bytes: int) -> Problem:
    """413: more than this installation takes."""
    return Problem(
        413,
        "too-large",
        "The upload is too large",
        f"This installation takes files up to {limit_bytes:,} bytes (RETORT_UPLOAD_LIMIT_BYTES).",
    )


def publish(staged: Path, final: Path) -> None:
    """Give a finished file or directory its name, durably."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(final)
    sync(final.parent)


def digests(folder: Path) -> dict[str, FileDigest]:
    """What all files of a directory are like, by their paths inside of it."""
    found = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    return {
        name: FileDigest(path.stat().st_size, file_sha256(path)) for name, path in found.items()
    }


def files(path: Path) -> Iterator[Path]:
    """The file itself, or all files under a directory."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _copy_file(source: Path, target: Path) -> FileDigest:
    digest, total = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
            total += len(block)
        _sync(writer)
    return FileDigest(total, digest.hexdigest())


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
