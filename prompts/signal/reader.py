"""Reads a signal: a row by its id costs one look-up in the index and one block."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from prompts.signal.block import Block
from prompts.signal.file import SignalSource
from prompts.signal.rows import CodedRow, RowSignal, SignalError, decode_rows

SUFFIX = ".signal"
_CACHED_BLOCKS = 64


class SignalReader:
    """A signal file, or all those of a directory (a dataset's `signal`). Use as a context manager.

    Opening reads headers and indexes (20 bytes a row), never the blocks. May be used from one
    thread at a time; after a fork both processes may read on.
    """

    def __init__(self, path: Path) -> None:
        """Raises SignalError for what is no signal, is truncated, or mixes headers."""
        self._sources = [SignalSource(file) for file in _files(path)]
        self.header = self._sources[0].header
        for other in self._sources[1:]:
            if other.header != self.header:
                first = self._sources[0].path.name
                raise SignalError(f"{other.path} has another header than {first} beside it")
        self.rows_total = sum(source.rows for source in self._sources)
        self.tokens_total = sum(source.tokens for source in self._sources)
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()

    def read(self, row_id: str) -> RowSignal:
        """The signal of one row. Raises SignalError if there is none or it is damaged."""
        return decode_rows(self.header, self.read_coded(row_id))

    def rows(self, row_ids: Sequence[str]) -> list[RowSignal]:
        """The signals of several rows, in the order given; each block is decoded once."""
        places = {row_id: self._place(row_id) for row_id in row_ids}
        found: dict[str, RowSignal] = {}
        for row_id in sorted(places, key=lambda name: places[name]):
            source, offset, number = places[row_id]
            coded = self._block(source, offset).row(number)
            found[row_id] = decode_rows(self.header, coded)
        return [found[row_id] for row_id in row_ids]

    def read_coded(self, row_id: str) -> CodedRow:
        """A row as it is stored, to be copied into another file of the same header."""
        source, offset, number = self._place(row_id)
        return self._block(source, offset).row(number)

    def scan(self) -> Iterator[tuple[str, RowSignal]]:
        """Every row with its id, in the order written; streams."""
        for source in self._sources:
            for block in source.blocks():
                for number, row_id in enumerate(block.row_ids):
                    yield row_id, decode_rows(self.header, block.row(number))

    def __contains__(self, row_id: str) -> bool:
        return self._find(row_id) is not None

    def close(self) -> None:
        """Closes the files."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> "SignalReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _place(self, row_id: str) -> tuple[int, int, int]:
        place = self._find(row_id)
        if place is None:
            folder = self._sources[0].path.parent
            raise SignalError(f"row {row_id!r} has no signal in {folder}")
        return place

    def _find(self, row_id: str) -> tuple[int, int, int] | None:
        for number, source in enumerate(self._sources):
            for offset, within in source.index.places(row_id):
                block = self._block(number, offset)
                if within < len(block.row_ids) and block.row_ids[within] == row_id:
                    return number, offset, within
        return None

    def _block(self, source: int, offset: int) -> Block:
        key = source, offset
        if key not in self._blocks:
            self._blocks[key] = self._sources[source].block(offset)
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if not files:
            raise SignalError(f"{path} holds no signal: build the dataset with `signal`")
        return files
    if not path.exists():
        raise SignalError(f"{path} does not exist: build the dataset with `signal`")
    return [path]
