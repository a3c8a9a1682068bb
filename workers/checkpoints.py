"""Checkpoints of a training where hosts share a bucket: a copy of the newest lies there, and
whoever takes the training up on another host begins from it.

    <root>/checkpoint/<job>/<epoch>-<step>/checkpoint-<step>/…  best-<step>/…

A copy is published as artifacts are: whole or not at all. The trainer knows nothing of it.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service import disk
from service.shared import StorageAwayError, StorageError
from service.site import Site
from service.store import everything
from trainer import checkpoint
from workers.lease import Lease

Tell = Callable[[str, dict[str, Any]], None]


@contextmanager
def copied(site: Site, lease: Lease, out: Path, tell: Tell) -> Iterator[Tell]:
    """Within, copies follow what the yielded function hears of checkpoints under `out`. At its end
    the last one has been sent: who claims the job next finds it."""
    if not site.store.mirrored:
        yield tell
        return
    with _Copies(site, lease, out / "checkpoints") as copies:

        def hear(type: str, data: dict[str, Any]) -> None:
            tell(type, data)
            if type == "phase" and data.get("name") == "checkpoint":
                copies.send_soon()
                copies.tell_trouble(tell)

        yield hear
    copies.tell_trouble(tell)


def take_up(site: Site, lease: Lease, out: Path, tell: Tell) -> None:
    """Bring the newest copy to where the trainer looks for it, if it is newer than what is there;
    and say so if an earlier claim of the job left nothing at all. Raises `StorageAwayError`."""
    if site.store.mirrored:
        try:
            _bring(site, lease.job_id, out / "checkpoints", tell)
        except StorageAwayError:
            raise
        except (StorageError, FileNotFoundError) as error:
            tell("warning", {"detail": f"the copy of a checkpoint can't be had: {error}"})
    if lease.epoch > 1 and not out.exists():
        detail = "nothing of an earlier attempt is on this host: it begins anew"
        tell("warning", {"detail": detail})


def forget(site: Site, job_id: str) -> None:
    """Delete the copies of a job that has published what it made."""
    if site.store.mirrored:
        with suppress(StorageError):  # The sweep takes them later.
            site.store.shared.remove(_folder(site, job_id))


def _bring(site: Site, job_id: str, directory: Path, tell: Tell) -> None:
    folder, shared = _folder(site, job_id), site.store.shared
    disk.remove(folder)  # What was in the mirror may be gone from the bucket.
    manifests = [name for name in shared.names(folder) if name.endswith(".json")]
    if not manifests:
        return
    name = max(manifests).removesuffix(".json")
    if int(name.partition("-")[2]) <= _newest_step(directory):
        return
    shared.fetch(folder / name, everything)
    directory.mkdir(parents=True, exist_ok=True)
    for sealed in (folder / name).iterdir():
        if not (directory / sealed.name).exists():
            sealed.rename(directory / sealed.name)
    disk.remove(folder)
    tell("phase", {"name": "fetch", "detail": f"{shared.location(folder / name)}, a checkpoint"})


def _newest_step(directory: Path) -> int:
    return max(map(checkpoint.step_of, checkpoint.listing(directory)), default=-1)


def _last_written(directory: Path) -> Path | None:
    """By the clock: of a later step may be another run's, or a damaged one."""
    written = {path: _written_ns(path) for path in checkpoint.listing(directory)}
    return max(written, key=lambda path: written[path], default=None)


def _written_ns(path: Path) -> int:
    """When a checkpoint was sealed; 0 where it never was, or is being deleted."""
    try:
        return (path / checkpoint.MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


def _folder(site: Site, job_id: str) -> Path:
    return site.store.root / "checkpoint" / job_id


class _Copies:
    """Sends copies in a thread of its own: training goes on meanwhile, and a copy that can't be
    sent is a warning, for the next one replaces it."""

    def __init__(self, site: Site, lease: Lease, directory: Path) -> None:
        self._site, self._lease, self._directory = site, lease, directory
        self._news, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._sent, self._trouble = "", ""

    def __enter__(self) -> "_Copies":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._news.set()
        self._thread.join()

    def send_soon(self) -> None:
        """There is a new checkpoint."""
        self._news.set()

    def tell_trouble(self, tell: Tell) -> None:
        """Say why the last copy was not sent, once."""
        trouble, self._trouble = self._trouble, ""
        if trouble:
            tell("warning", {"detail": f"no copy of a checkpoint was sent: {trouble}"})

    def _run(self) -> None:
        over = False
        while not over:
            self._news.wait()
            self._news.clear()
            over = self._ended.is_set()
            try:
                self._send()
            except OSError as error:
                self._trouble = str(error)

    def _send(self) -> None:
        last = _last_written(self._directory)
        if last is None or self._lease.lost.is_set():
            return
        name = f"{self._lease.epoch:06}-{checkpoint.step_of(last):09}"
        folder, shared = _folder(self._site, self._lease.job_id), self._site.store.shared
        if name == self._sent:
            return
        try:
            if not self._linked(folder / name, last):
                self._news.set()
                return
            shared.publish(folder / name, disk.digests(folder / name))
        finally:
            disk.remove(folder)
        self._sent = name
        for older in {each.removesuffix(".json") for each in shared.names(folder)}:
            if older < name:
                shared.remove(folder / older)

    def _linked(self, target: Path, last: Path) -> bool:
        """Give a checkpoint, and the best weights it may name, second names that the trainer
        doesn't delete. False if it may have begun to: it keeps the last written, always."""
        try:
            for sealed in (last, *self._directory.glob("best-*")):
                for file in disk.files(sealed):
                    _link(file, target / file.relative_to(self._directory))
        except FileNotFoundError:
            return False
        return _last_written(self._directory) == last


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file systems differ."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
