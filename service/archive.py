"""Directories as zip files, streamed: nothing is held in memory or written to disk."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 1 << 18


class _Outlet(io.RawIOBase):
    """A file that can only be written to, and emptied."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, block) -> int:  # type: ignore[no-untyped-def]  # any buffer
        self._blocks.append(bytes(block))
        return len(block)

    def empty(self) -> bytes:
        written = b"".join(self._blocks)
        self._blocks.clear()
        return written


def zipped(directory: Path) -> Iterator[bytes]:
    """The blocks of a zip of `directory`, stored uncompressed: Parquet and weights don't shrink."""
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(directory).as_posix())
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    yield outlet.empty()
    yield outlet.empty()
