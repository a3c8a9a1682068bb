"""One signal file, open for reading: every damage is named with the file's path."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from prompts.signal.block import HEAD, Block, decode_block
from prompts.signal.header import SignalHeader
from prompts.signal.layout import (
    END,
    ENTRY_BYTES,
    FOOTER,
    HEADER_HEAD,
    MAGIC,
    Index,
    checksum,
    index_checksum,
    read_index,
)
from prompts.signal.rows import SignalError


class SignalSource:
    """State: the open file. Reads by position, so processes that share it don't disturb another."""

    def __init__(self, path: Path) -> None:
        """Raises SignalError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._first, self.header = self._read_header()
            self._last, self.rows, self.tokens, self.index = self._read_index()
        except BaseException:
            self.close()
            raise

    def block(self, offset: int) -> Block:
        """The block that begins at `offset`. Raises SignalError."""
        return self._block(offset)[0]

    def blocks(self) -> Iterator[Block]:
        """All blocks, one in memory at a time."""
        offset = self._first
        while offset < self._last:
            block, offset = self._block(offset)
            yield block

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _block(self, offset: int) -> tuple[Block, int]:
        length, expected = HEAD.unpack(self._read(offset, HEAD.size))
        start = offset + HEAD.size
        if start + length > self._last:
            raise self._damaged(f"the block at byte {offset} reaches beyond its end")
        body = self._read(start, length)
        if checksum(body) != expected:
            raise self._damaged(f"the block at byte {offset} does not match its checksum")
        try:
            return decode_block(self.header, body), start + length
        except SignalError as error:
            raise self._damaged(f"at byte {offset}: {error}") from error

    def _read_header(self) -> tuple[int, SignalHeader]:
        if self._read(0, len(MAGIC)) != MAGIC:
            raise SignalError(f"{self.path} is no signal file, or one of another version")
        length, expected = HEADER_HEAD.unpack(self._read(len(MAGIC), HEADER_HEAD.size))
        start = len(MAGIC) + HEADER_HEAD.size
        if start + length > os.fstat(self._descriptor).st_size:
            raise self._damaged("its header is cut off or damaged")
        text = self._read(start, length)
        if checksum(text) != expected:
            raise self._damaged("its header does not match its checksum")
        try:
            return start + length, SignalHeader.model_validate_json(text)
        except ValidationError as error:
            raise self._damaged(f"its header is of another version: {error}") from error

    def _read_index(self) -> tuple[int, int, int, Index]:
        size = os.fstat(self._descriptor).st_size
        if size < self._first + FOOTER.size:
            raise self._damaged("it is truncated: it has no footer")
        footer = self._read(size - FOOTER.size, FOOTER.size)
        start, rows, tokens, expected, end = FOOTER.unpack(footer)
        if end != END:
            raise self._damaged("it is truncated: it does not end in a footer")
        if start + rows * ENTRY_BYTES + FOOTER.size != size:
            raise self._damaged("its footer and its size contradict each other")
        data = self._read(start, rows * ENTRY_BYTES)
        if index_checksum(start, rows, tokens, data) != expected:
            raise self._damaged("its index does not match its checksum")
        return start, rows, tokens, read_index(data, rows)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) < length:
            raise self._damaged("it is truncated")
        return data

    def _damaged(self, problem: str) -> SignalError:
        return SignalError(f"{self.path} is damaged: {problem}; copy it again, or build again")
