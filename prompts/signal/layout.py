"""A signal file from end to end.

    magic · length and CRC of the header · header (JSON) · block · block · ... · index · footer

The index has three columns: the sorted 8-byte digests of the row ids, the offsets of their blocks,
and their numbers within these. The footer is of a fixed size and says where the index begins.
"""

import struct
import zlib
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MAGIC = b"RETSIG01"
END = b"01GISTER"
HEADER_HEAD = struct.Struct("<II")
"""Bytes of the header, and their CRC-32."""
FOOTER = struct.Struct("<QQQI8s")
"""Offset of the index, rows, tokens, CRC-32 of the index and of these three, END."""
ENTRY_BYTES = 8 + 8 + 4


def row_digest(row_id: str) -> int:
    """The first 8 bytes of a row id's BLAKE2b: two rows may share one, so ids are compared too."""
    return int.from_bytes(blake2b(row_id.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Index:
    """Where rows lie, sorted by digest."""

    digests: NDArray[np.uint64]
    offsets: NDArray[np.uint64]
    """Of the row's block, from the file's beginning."""
    numbers: NDArray[np.uint32]
    """Of the row within its block."""

    def places(self, row_id: str) -> list[tuple[int, int]]:
        """(offset, number) of every row with this id's digest: one or none, but for collisions."""
        digest = np.uint64(row_digest(row_id))
        first = int(np.searchsorted(self.digests, digest, "left"))
        last = int(np.searchsorted(self.digests, digest, "right"))
        return [(int(self.offsets[i]), int(self.numbers[i])) for i in range(first, last)]


def index_bytes(index: Index) -> bytes:
    """The three columns, one after the other."""
    order = np.argsort(index.digests, kind="stable")
    columns = (index.digests, index.offsets, index.numbers)
    return b"".join(column[order].tobytes() for column in columns)


def read_index(data: bytes, rows: int) -> Index:
    """The reverse of `index_bytes`."""
    return Index(
        np.frombuffer(data, np.uint64, rows),
        np.frombuffer(data, np.uint64, rows, 8 * rows),
        np.frombuffer(data, np.uint32, rows, 16 * rows),
    )


def pack_footer(start: int, rows: int, tokens: int, index: bytes) -> bytes:
    """The footer of a file whose index begins at `start`."""
    return FOOTER.pack(start, rows, tokens, index_checksum(start, rows, tokens, index), END)


def index_checksum(start: int, rows: int, tokens: int, index: bytes) -> int:
    """What the footer holds to prove index and figures."""
    return zlib.crc32(struct.pack("<QQQ", start, rows, tokens), zlib.crc32(index))


def checksum(data: bytes) -> int:
    """CRC-32."""
    return zlib.crc32(data)
