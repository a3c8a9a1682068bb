"""The ledger: what the teacher answered, kept before anything else happens with it.

Segments lie under `ledger/<job>/<chunk>/<epoch>/<seq>`, immutable, one writer per epoch. Each is
JSON lines: a header with the count and the SHA-256 of the rest, then one entry per line.
A successor reads all epochs below its own before it asks the teacher anything.
"""

import asyncio
import errno
import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from prompts.record import Call
from service.durable import Write, make_directory, write_durably
from service.shared import StorageAwayError
from service.waiting import wait_at_most
from workers.lease import Lease

T = TypeVar("T")
log = logging.getLogger(__name__)

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_LOOK_S = 1.0
GROUP_S = 0.02
"""How long a finished call waits for others to share its fsync."""
GROUP_SIZE = 32
"""So many finished calls share one fsync without waiting."""


class LedgerDamagedError(Exception):
    """A segment that was once written in full no longer is what it was."""


class LeaseLostError(Exception):
    """Another worker has taken over: nothing may be sent or written any more."""


@dataclass(frozen=True)
class Entry:
    """One paid call and the seconds it took, retries left out."""

    call: Call
    seconds: float
    cached: bool = False
    """Taken from the completion cache: it cost nothing."""


def folder_of(root: Path, job_id: str, number: int) -> Path:
    """Where a chunk's epochs lie."""
    return root / "ledger" / job_id / f"{number:06d}"


def segment_name(sequence: int) -> str:
    """The file name of an epoch's segment, counted from 1."""
    return f"{sequence:06d}"


def read_entries(folder: Path, below: int | None = None) -> dict[str, list[Entry]]:
    """All entries of a chunk, by row; of the epochs under `below` only, if that is given.

    An entry's key is (row, step, sample); the earliest one written stands. Temporary names are what
    a dying writer left and are passed over. Raises `LedgerDamagedError`.
    """
    found: dict[tuple[str, int, int], Entry] = {}
    for epoch in sorted(folder.glob("[0-9]*")):
        if below is not None and int(epoch.name) >= below:
            continue
        for segment in sorted(epoch.glob("[0-9]*")):
            for entry in decode_segment(segment):
                call = entry.call
                found.setdefault((call.row, call.step, call.sample), entry)
    rows: dict[str, list[Entry]] = {}
    for key in sorted(found):
        rows.setdefault(key[0], []).append(found[key])
    return rows


def encode_segment(entries: Iterable[Entry]) -> bytes:
    """A segment's bytes."""
    lines = [
        json.dumps(
            {"seconds": round(entry.seconds, 4), "call": entry.call.model_dump()}
            | ({"cached": True} if entry.cached else {})
        )
        for entry in entries
    ]
    body = ("\n".join(lines) + "\n").encode()
    header = {"entries": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(header).encode() + b"\n" + body


def decode_segment(path: Path) -> list[Entry]:
    """A segment's entries, or `LedgerDamagedError`."""
    header, _, body = path.read_bytes().partition(b"\n")
    try:
        expected: dict[str, Any] = json.loads(header)
        intact = expected["sha256"] == hashlib.sha256(body).hexdigest()
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise LedgerDamagedError(
            f"{path} does not match its checksum: restore it from a backup, or delete it to pay "
            "for its calls again"
        )
    entries = [json.loads(line) for line in body.splitlines()]
    return [
        Entry(Call.model_validate(entry["call"]), entry["seconds"], entry.get("cached", False))
        for entry in entries
    ]


class LedgerWriter:
    """Appends to one chunk's ledger under one lease; calls that finish together share an fsync."""

    def __init__(
        self,
        root: Path,
        lease: Lease,
        write: Write = write_durably,
        waits: Callable[[OSError], None] = lambda error: None,
    ):
        """`waits` is told each time that a write waits: for space, or for the bucket."""
        assert lease.number is not None
        self._folder = folder_of(root, lease.job_id, lease.number) / f"{lease.epoch:06d}"
        self._lease = lease
        self._write = write
        self._waits = waits
        self._sequence = 0
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._full = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, entry: Entry) -> None:
        """Returns once the entry is durable; raises `LeaseLostError` or OSError if it is not."""
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, durable))
        if len(self._waiting) >= GROUP_SIZE:
            self._full.set()
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await durable

    async def _flush(self) -> None:
        while self._waiting:
            await self._gather()
            group, self._waiting = self._waiting, []
            error = await self._commit([entry for entry, _ in group])
            for _, durable in group:
                if durable.done():
                    continue
                if error is None:
                    durable.set_result(None)
                else:
                    durable.set_exception(error)
        self._flusher = None

    async def _gather(self) -> None:
        self._full.clear()
        if len(self._waiting) < GROUP_SIZE:
            await wait_at_most(self._full, GROUP_S)

    async def _commit(self, entries: list[Entry]) -> Exception | None:
        self._sequence += 1
        path, data = self._folder / segment_name(self._sequence), encode_segment(entries)
        try:
            await until_written(self._lease, self._waits, lambda: self._write_segment(path, data))
        except (OSError, LeaseLostError) as error:
            return error
        return None

    def _write_segment(self, path: Path, data: bytes) -> None:
        # The first makes the folder. If it is gone later, the job is over, and stays tidied away.
        if path.name == segment_name(1) and self._lease.held():
            make_directory(path.parent)
        self._write(path, data)


async def wait_until_held(lease: Lease) -> None:
    """Wait out a heartbeat that is late. Raises `LeaseLostError`."""
    while not lease.held():
        if lease.lost.is_set():
            raise LeaseLostError(f"chunk {lease.number} of {lease.job_id}")
        await asyncio.sleep(0.05)


async def until_written(
    lease: Lease, waits: Callable[[OSError], None], write: Callable[[], T]
) -> T:
    """Run `write` in a thread while the lease is held; wait and try again while the disk is full or
    the bucket doesn't answer.

    What was paid for stays in memory meanwhile, and soon nothing new is asked. Raises
    `LeaseLostError`, also for files that are gone because another took over and has ended, and
    OSError for anything else.
    """
    while True:
        await wait_until_held(lease)
        try:
            return await asyncio.to_thread(write)
        except OSError as error:
            if error.errno not in FULL_DISK and not isinstance(error, StorageAwayError):
                await wait_until_held(lease)
                raise
            waits(error)
        except OperationalError as error:
            log.warning("%s: the database can't be reached: %s", lease.job_id, error)
        await asyncio.sleep(DISK_LOOK_S)
