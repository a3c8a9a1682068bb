"""The artifact root as all hosts see it: a directory that they share, or a bucket.

Paths are local ones below the root, always. Of a directory that is all there is to it. Of a bucket
they are this host's mirror: `pull` and `fetch` bring here what is about to be read; `write`,
`move`, `push` and `publish` return once every other host can read what was given. Nothing changes
once it was written, so what is here is not asked for again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from service import disk
from service.durable import publish_durably, write_durably

Wanted = Callable[[str], bool]
"""Which files of an artifact, by their paths inside of it."""


class StorageError(OSError):
    """The artifact root can't be used; says why, and what to do."""


class StorageAwayError(StorageError):
    """It doesn't answer just now: whoever can waits and tries again."""


@dataclass(frozen=True)
class Found:
    """A file under the artifact root."""

    path: Path
    bytes: int
    modified: datetime


class Shared(Protocol):
    """What becomes of files under the artifact root. All may raise `StorageError`."""

    def location(self, path: Path) -> str:
        """Where it lies, for a person."""

    def check(self) -> None:
        """Raise `StorageError` if it can't be used."""

    def write(self, path: Path, data: bytes) -> None:
        """Make a small file, whole or not at all; returns once it is durable."""

    def move(self, draft: Path, path: Path) -> None:
        """Give a file that was written in full its name, durably."""

    def push(self, path: Path) -> None:
        """A file was written here, durably: let all have it."""

    def pull(self, path: Path) -> None:
        """Bring a file, or all that a folder holds; what is nowhere isn't brought."""

    def publish(self, folder: Path, files: Mapping[str, disk.FileDigest]) -> None:
        """An artifact was written here: let all have it, as a whole or not at all."""

    def fetch(self, folder: Path, wanted: Wanted) -> None:
        """Bring files of a published artifact, each as it was published."""

    def whole(self, folder: Path) -> bool:
        """Whether a published artifact is there; in a bucket, each of its files by its size."""

    def names(self, folder: Path) -> list[str]:
        """What lies right in a folder."""

    def found(self, folder: Path) -> Iterator[Found]:
        """All files of a folder."""

    def unpublished(self, folder: Path, before: datetime) -> Iterator[Path]:
        """Artifacts in `folder` that no reader can see and nobody wrote to since `before`: what a
        broken upload left."""

    def remove(self, path: Path) -> None:
        """Delete a file or folder, if it is there."""


class Directory:
    """A directory of this host, or one that all hosts share under the same path."""

    def location(self, path: Path) -> str:
        return str(path)

    def check(self) -> None:
        pass

    def write(self, path: Path, data: bytes) -> None:
        write_durably(path, data)

    def move(self, draft: Path, path: Path) -> None:
        publish_durably(draft, path)

    def push(self, path: Path) -> None:
        pass

    def pull(self, path: Path) -> None:
        pass

    def publish(self, folder: Path, files: Mapping[str, disk.FileDigest]) -> None:
        pass

    def fetch(self, folder: Path, wanted: Wanted) -> None:
        pass

    def whole(self, folder: Path) -> bool:
        return folder.is_dir()

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def found(self, folder: Path) -> Iterator[Found]:
        for path in disk.files(folder):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # Deleted since it was listed.
            yield Found(path, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    def unpublished(self, folder: Path, before: datetime) -> Iterator[Path]:
        # A directory without a row may be one that a restored database doesn't know.
        yield from ()

    def remove(self, path: Path) -> None:
        disk.remove(path)
