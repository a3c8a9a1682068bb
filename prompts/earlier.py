"""What an earlier version of a dataset has already: its seeds by content, its ids."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from prompts.dataset.chunk import ChunkFile, write_chunk
from prompts.dataset.read import read_rejected, read_rows
from prompts.record import Record, Rejected, Seed
from prompts.seen import Seen, digest16
from prompts.split import SPLITS


def seed_digest(seed: Seed) -> str:
    """SHA-256 of a seed's content, hex; its id is a name, not content."""
    content = {name: value for name, value in seed.items() if name != "id"}
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def earlier_chunk(dataset: Path, path: Path) -> ChunkFile:
    """The rows of an earlier version that ended for good, as a chunk file at `path`."""
    return write_chunk(path, _rows(dataset))


class Earlier:
    """The rows of an earlier version that ended for good, in 24 bytes a slot each."""

    def __init__(self, dataset: Path) -> None:
        self.accepted = self.rows = 0
        self._content, self._ids = Seen(), Seen()
        for row in _rows(dataset):
            self.rows += 1
            self.accepted += isinstance(row, Record)
            self._content.first(bytes.fromhex(seed_digest(json.loads(row.seed)))[:16], 0)
            self._ids.first(digest16(row.id), 0)

    def fresh(self, seeds: Iterator[Seed]) -> Iterator[Seed]:
        """Only seeds whose content was not there. One whose id belongs to another content gets its
        digest behind its name."""
        for seed in seeds:
            digest = seed_digest(seed)
            if self._content.first(bytes.fromhex(digest)[:16], 0) is not None:
                continue
            if self._ids.first(digest16(seed["id"]), 0) is not None:
                seed = seed | {"id": f"{seed['id']}~{digest[:8]}"}
            yield seed


def _rows(dataset: Path) -> Iterator[Record | Rejected]:
    for split in SPLITS:
        yield from read_rows(dataset, split)
    for row in read_rejected(dataset):
        if row.end == "rejected":
            yield row
