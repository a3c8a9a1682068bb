"""Checkpoints that are either whole or not there.

A checkpoint is written under a temporary name, its files hashed into `manifest.json`, flushed to
disk, and renamed; one whose hashes don't hold is passed over for the one before.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from prompts.files import file_sha256, sync

MANIFEST = "manifest.json"
WRITING = ".writing"
"""Where what isn't whole yet lies."""


def seal(written: Path, target: Path, digest: str) -> None:
    """Hash and flush the files of `written`, then rename it to `target`."""
    (written / MANIFEST).unlink(missing_ok=True)  # of a process that died before it could rename
    files = {path.name: file_sha256(path) for path in sorted(written.iterdir()) if path.is_file()}
    manifest = {"version": 1, "digest": digest, "files": files}
    (written / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
    publish(written, target)


def publish(written: Path, target: Path) -> None:
    """Rename a directory into place so that after a power cut it is whole or absent."""
    for path in [*written.rglob("*"), written]:
        sync(path)
    if target.exists():
        shutil.rmtree(target)
    written.rename(target)
    sync(target.parent)


def newest(directory: Path, digest: str, refused: Callable[[Path, str], None]) -> Path | None:
    """The last checkpoint whose files are all as they were written, by the run `digest` names.

    `refused` is told of each one passed over, and why.
    """
    for path in reversed(listing(directory)):
        found = problem(path, digest)
        if found is None:
            return path
        refused(path, found)
    return None


def listing(directory: Path) -> list[Path]:
    """Checkpoints by step, the oldest first; what was never renamed into place is not one."""
    found = [path for path in directory.glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Of a checkpoint, by its name."""
    return int(path.name[11:])


def thin(directory: Path, keep: int, digest: str, step: int) -> None:
    """Delete all but the newest `keep` of the run `digest` names, which is at `step`: a later one
    of its own was passed over as damaged. Other runs' are theirs."""
    own = [path for path in listing(directory) if owner(path) == digest]
    kept = [path for path in own if step_of(path) <= step][-keep:]
    for path in own:
        if path not in kept:
            shutil.rmtree(path)


def owner(path: Path) -> str | None:
    """The digest of the run that wrote a sealed directory; None where it doesn't say."""
    try:
        digest = json.loads((path / MANIFEST).read_text("utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def problem(path: Path, digest: str) -> str | None:
    """Why a sealed directory can't be used by the run `digest` names; None where it is whole."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        files: dict[str, str] = manifest["files"]
        if manifest["digest"] != digest:
            return "it belongs to a run with another spec, dataset, student or number of processes"
        if not files:
            return "it is incomplete (its manifest names no file)"
        for name, expected in files.items():
            if file_sha256(path / name) != expected:
                return f"{name} is not what was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it is incomplete ({error})"
    return None
