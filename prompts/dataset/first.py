"""Exactly so many accepted rows: the first in input order; the others are not needed."""

import pyarrow as pa

from prompts.dataset.fallen import Row, fallen
from prompts.dataset.schema import CHUNK_SCHEMA
from prompts.record import End

TARGET = "target"
"""Why a row was not needed: enough others were accepted."""


class ShortError(Exception):
    """Rows were left unasked although too few before them were accepted, duplicates left out."""

    def __init__(self, accepted: int) -> None:
        super().__init__(f"{accepted} rows were accepted before the first that was left unasked")
        self.accepted = accepted


class First:
    """Takes the first `rows` accepted rows of tables that come in input order; None takes all."""

    def __init__(self, rows: int | None) -> None:
        self._rows = rows
        self._taken = 0

    def take(self, table: pa.Table) -> pa.Table:
        """The table with what is beyond as not_needed, its raw completions kept. Raises
        ShortError where an unasked row comes before enough were taken."""
        if self._rows is None:
            return table
        beyond: list[int] = []
        pairs = zip(table["end"].to_pylist(), table["reason"].to_pylist(), strict=True)
        for index, (end, reason) in enumerate(pairs):
            if end == End.ACCEPTED and self._taken < self._rows:
                self._taken += 1
            elif end == End.ACCEPTED:
                beyond.append(index)
            elif reason == TARGET and self._taken < self._rows:
                raise ShortError(self._taken)
        return _not_needed(table, beyond) if beyond else table


def _not_needed(table: pa.Table, beyond: list[int]) -> pa.Table:
    rows: list[Row] = table.to_pylist()
    for index in beyond:
        detail = "accepted, but enough rows before it were"
        rows[index] = fallen(rows[index], End.NOT_NEEDED, TARGET, detail)
    return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)
