"""Blocks: a few whole rows, each sort of number in a section of its own, compressed by zstd.

Numbers are split into byte planes, for the high bytes of ids and codes hardly vary: entropy coding
then leaves little of them. Log-prob codes are kept as differences along a token's k entries. Of the
completion's own tokens the rank among the k is stored, and in full those that are not among them.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import zstandard
from numpy.typing import NDArray

from prompts.signal.header import SignalHeader
from prompts.signal.rows import CodedRow, SignalError

BLOCK_TOKENS = 1024
"""A block is closed once it holds so many: what reading one row has to decode."""
LEVEL = 3
HEAD = struct.Struct("<II")
"""Bytes of a block's body, and their CRC-32."""
_LENGTH = struct.Struct("<I")
Cuts = tuple[int, ...]
_SMALL: Cuts = (0, 8, 16)
"""Bits at which 16-bit numbers are cut into planes."""
_IDS: Cuts = (0, 8, 16, 24)
"""Of token ids, below 2**24."""


@dataclass(frozen=True)
class Block:
    """Decoded rows, joined along T."""

    row_ids: tuple[str, ...]
    starts: NDArray[np.int64]
    """[rows + 1] where each row's tokens begin."""
    rows: CodedRow

    def row(self, number: int) -> CodedRow:
        """The tokens of one row."""
        part = slice(self.starts[number], self.starts[number + 1])
        joined = self.rows
        return CodedRow(
            joined.token_ids[part], joined.ids[part], joined.codes[part], joined.tail[part]
        )


def encode_block(header: SignalHeader, row_ids: Sequence[str], rows: Sequence[CodedRow]) -> bytes:
    """The bytes of a block, its head included."""
    token_ids = np.concatenate([row.token_ids for row in rows])
    ids = np.concatenate([row.ids for row in rows])
    codes = np.concatenate([row.codes for row in rows])
    ranks = _ranks(token_ids, ids)
    values = np.diff(codes, axis=1, prepend=np.uint16(0)) if header.kind == "top_k" else codes
    sections = [
        json.dumps(list(row_ids), ensure_ascii=False).encode(),
        np.array([len(row.token_ids) for row in rows], np.uint32).tobytes(),
        *_planes(ranks, _SMALL),
        *_planes(token_ids[ranks == ids.shape[1]], _IDS),
        *_planes(ids.T, _IDS),
        *_planes(values.T, _SMALL),
        *_planes(np.concatenate([row.tail for row in rows]), _SMALL),
    ]
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    packed = [compressor.compress(section) for section in sections]
    body = b"".join(_LENGTH.pack(len(section)) + section for section in packed)
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def decode_block(header: SignalHeader, body: bytes) -> Block:
    """The rows of a block without its head. Raises SignalError for what is no block."""
    try:
        return _decoded(header, list(_sections(body)))
    except (zstandard.ZstdError, struct.error, ValueError, IndexError) as error:
        raise SignalError(f"a block can't be decoded: {error}") from error


def _decoded(header: SignalHeader, sections: list[bytes]) -> Block:
    row_ids = tuple(json.loads(sections[0]))
    lengths = np.frombuffer(sections[1], np.uint32)
    ranks = _joined(sections[2:4], _SMALL).astype(np.int64)
    shape = (header.width, len(ranks))
    ids = np.ascontiguousarray(_joined(sections[7:10], _IDS).reshape(shape).T)
    values = _joined(sections[10:12], _SMALL).astype(np.uint16).reshape(shape).T
    codes = np.cumsum(values, axis=1, dtype=np.uint16) if header.kind == "top_k" else values
    rows = CodedRow(
        _tokens(ranks, ids, _joined(sections[4:7], _IDS)),
        ids,
        np.ascontiguousarray(codes),
        _joined(sections[12:14], _SMALL).astype(np.uint16),
    )
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if len(lengths) != len(row_ids) or starts[-1] != len(ranks) or len(rows.tail) != len(ranks):
        raise SignalError("a block's sections don't fit each other")
    return Block(row_ids, starts, rows)


def _sections(body: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    place = 0
    while place < len(body):
        (length,) = _LENGTH.unpack_from(body, place)
        place += _LENGTH.size
        yield decompressor.decompress(body[place : place + length])
        place += length


def _ranks(token_ids: NDArray[np.int32], ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each token stands among its k entries; k if it is not there."""
    equal = ids == token_ids[:, None]
    ranks: NDArray[np.int64] = np.where(equal.any(axis=1), equal.argmax(axis=1), ids.shape[1])
    return ranks


def _tokens(
    ranks: NDArray[np.int64], ids: NDArray[np.int32], others: NDArray[np.int32]
) -> NDArray[np.int32]:
    width = ids.shape[1]
    tokens = np.take_along_axis(ids, np.minimum(ranks, width - 1)[:, None], axis=1)[:, 0]
    tokens[ranks == width] = others
    return tokens


def _planes(numbers: NDArray[np.integer], cuts: Cuts) -> list[bytes]:
    """The bits up to the first cut of all numbers, then those up to the second, ..."""
    flat = np.ascontiguousarray(numbers)
    return [
        ((flat >> low) & ((1 << (high - low)) - 1)).astype(np.uint8).tobytes()
        for low, high in pairwise(cuts)
    ]


def _joined(planes: Sequence[bytes], cuts: Cuts) -> NDArray[np.int32]:
    joined = np.frombuffer(planes[0], np.uint8).astype(np.int32)
    for plane, low in zip(planes[1:], cuts[1:], strict=False):
        joined |= np.frombuffer(plane, np.uint8).astype(np.int32) << low
    return joined
