"""Files that are either whole or not there, also after a power cut."""

import os
from collections.abc import Callable
from pathlib import Path

from prompts.dataset.files import sync

Write = Callable[[Path, bytes], None]


def write_durably(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the directory. Raises OSError, and then leaves no file behind."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def publish_durably(temporary: Path, path: Path) -> None:
    """Give a file that was written in full its name, and make both last."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, so that the new names last."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)
