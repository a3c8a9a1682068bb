"""Tables whose dashes have footnotes: a missing figure says why, on paper and on a phone too."""

from collections.abc import Iterable, Sequence

from prompts.record import Frozen
from trainer.report.cells import Cell, label


class Noted(Frozen):
    """A cell with the number of its footnote, if it has one."""

    text: str
    below: str | None
    number: bool
    note: int | None = None


class Table(Frozen):
    """A table; every row is as long as `columns`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Noted, ...], ...]
    notes: tuple[str, ...] = ()
    """Footnotes, the first one is number 1."""


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table with its footnotes numbered in reading order, equal ones once."""
    notes: list[str] = []
    noted = tuple(tuple(_noted(cell, notes) for cell in row) for row in rows)
    return Table(title=title, columns=tuple(columns), rows=noted, notes=tuple(notes))


def facts(title: str, found: dict[str, Cell]) -> Table:
    """A table of names and values."""
    rows = (
        [label(name), cell.model_copy(update={"number": False})] for name, cell in found.items()
    )
    return grid(title, ["", "value"], rows)


def _noted(cell: Cell, notes: list[str]) -> Noted:
    if cell.why is not None and cell.why not in notes:
        notes.append(cell.why)
    note = notes.index(cell.why) + 1 if cell.why is not None else None
    return Noted(text=cell.text, below=cell.below, number=cell.number, note=note)
