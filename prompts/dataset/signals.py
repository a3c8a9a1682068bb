"""The signal of a dataset: chunks' signals copied, row by accepted row, into a few large files."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from prompts.dataset.files import DatasetError, file_sha256, sync
from prompts.dataset.manifest import SignalPart, SignalSummary
from prompts.signal import (
    SUFFIX,
    SignalError,
    SignalHeader,
    SignalReader,
    SignalWriter,
    signal_file,
)

FOLDER = "signal"
PART_TOKENS = 20_000_000
"""Of one file: under 1 GB at k = 16."""


class SignalParts:
    """Files of `<root>/signal`, filled one after the other. Without a row there is none."""

    def __init__(self, root: Path, part_tokens: int = PART_TOKENS) -> None:
        self._folder = root / FOLDER
        self._part_tokens = part_tokens
        self._header: SignalHeader | None = None
        self._open = ExitStack()
        self._writer: SignalWriter | None = None
        self._parts: list[SignalPart] = []

    def copy(self, source: Path, row_ids: Sequence[str]) -> None:
        """Copies these rows of the signal file `source`, unchanged.

        Raises DatasetError if one is missing or if the file's header isn't the first one's.
        """
        try:
            with SignalReader(source) as reader:
                for row_id in row_ids:
                    self._room(reader.header).add_coded(row_id, reader.read_coded(row_id))
        except SignalError as error:
            raise DatasetError(f"the signal can't be assembled: {error}") from error

    def finish(self) -> SignalSummary | None:
        """Closes the last file; what the manifest says of all; None if no row came."""
        self._close()
        if self._header is None:
            return None
        sync(self._folder)
        shared = self._header.model_dump(include={"kind", "width", "temperature", "teacher"})
        return SignalSummary(
            **shared,
            rows=sum(part.rows for part in self._parts),
            tokens=sum(part.tokens for part in self._parts),
            files=tuple(self._parts),
        )

    def abandon(self) -> None:
        """Closes the open file without caring for what is in it."""
        self._open.close()
        self._writer = None

    def _room(self, header: SignalHeader) -> SignalWriter:
        if self._header is not None and header != self._header:
            raise DatasetError("the chunks' signals have different headers: two teachers, or two k")
        self._header = header
        if self._writer is not None and self._writer.tokens >= self._part_tokens:
            self._close()
        if self._writer is None:
            self._writer = self._open.enter_context(signal_file(self._path(), header))
        return self._writer

    def _close(self) -> None:
        path, writer = self._path(), self._writer
        self.abandon()
        if writer is None:
            return
        self._parts.append(
            SignalPart(
                path=f"{FOLDER}/{path.name}",
                rows=writer.rows,
                tokens=writer.tokens,
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )

    def _path(self) -> Path:
        return self._folder / f"part-{len(self._parts):05d}{SUFFIX}"
