"""Writes signal files: rows in any order, a block at a time, the index last."""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from prompts.files import file_sha256, whole_file
from prompts.seen import Seen, digest16
from prompts.signal.block import BLOCK_TOKENS, encode_block
from prompts.signal.header import SignalHeader
from prompts.signal.layout import (
    HEADER_HEAD,
    MAGIC,
    Index,
    checksum,
    index_bytes,
    pack_footer,
    row_digest,
)
from prompts.signal.rows import CodedRow, RowSignal, SignalError, encode_row


@dataclass(frozen=True)
class SignalFile:
    """A finished file."""

    path: Path
    rows: int
    tokens: int
    bytes: int
    sha256: str


def write_signal(
    path: Path, header: SignalHeader, rows: Iterable[tuple[str, RowSignal]]
) -> SignalFile:
    """Writes (row id, signal) pairs as a whole file or not at all; equal rows give equal bytes.

    Raises SignalError for an id that comes twice and for a row that doesn't fit the header.
    """
    with signal_file(path, header) as writer:
        for row_id, row in rows:
            writer.add(row_id, row)
    return SignalFile(path, writer.rows, writer.tokens, path.stat().st_size, file_sha256(path))


@contextmanager
def signal_file(path: Path, header: SignalHeader) -> Iterator["SignalWriter"]:
    """A writer whose file appears at `path` when the block ends without an error."""
    with whole_file(path) as part, part.open("wb") as file:
        writer = SignalWriter(file, header)
        yield writer
        writer.finish()


class SignalWriter:
    """Appends rows to an open file; about 60 bytes a row stay in memory until `finish`."""

    def __init__(self, file: BinaryIO, header: SignalHeader) -> None:
        self.header = header
        self.rows = self.tokens = 0
        self._file, self._seen = file, Seen()
        self._waiting: list[tuple[str, CodedRow]] = []
        self._waiting_tokens = 0
        self._digests, self._offsets, self._numbers = array("Q"), array("Q"), array("I")
        text = header.model_dump_json().encode()
        file.write(MAGIC + HEADER_HEAD.pack(len(text), checksum(text)) + text)

    def add(self, row_id: str, row: RowSignal) -> None:
        """Appends a row. Raises SignalError, which names it."""
        try:
            coded = encode_row(self.header, row)
        except SignalError as error:
            raise SignalError(f"row {row_id!r}: {error}") from error
        self.add_coded(row_id, coded)

    def add_coded(self, row_id: str, row: CodedRow) -> None:
        """Appends a row as another file of the same header holds it."""
        if self._seen.first(digest16(row_id), self.rows) is not None:
            raise SignalError(f"row {row_id!r} has a signal already")
        self._waiting.append((row_id, row))
        self._waiting_tokens += len(row.token_ids)
        self.rows += 1
        self.tokens += len(row.token_ids)
        if self._waiting_tokens >= BLOCK_TOKENS:
            self._write_block()

    def finish(self) -> None:
        """Writes what waits, the index and the footer; nothing may be added afterwards."""
        if self._waiting:
            self._write_block()
        index = index_bytes(
            Index(
                np.frombuffer(self._digests, np.uint64),
                np.frombuffer(self._offsets, np.uint64),
                np.frombuffer(self._numbers, np.uint32),
            )
        )
        start = self._file.tell()
        self._file.write(index)
        self._file.write(pack_footer(start, self.rows, self.tokens, index))
        self._file.flush()

    def _write_block(self) -> None:
        offset = self._file.tell()
        for number, (row_id, _) in enumerate(self._waiting):
            self._digests.append(row_digest(row_id))
            self._offsets.append(offset)
            self._numbers.append(number)
        ids, rows = zip(*self._waiting, strict=True)
        self._file.write(encode_block(self.header, ids, rows))
        self._waiting, self._waiting_tokens = [], 0
