"""Lists page by page: who asks for a row more than a page holds knows whether another follows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Place = TypeVar("Place")


def cut(
    found: Sequence[Row], size: int, place: Callable[[Row], Place]
) -> tuple[list[Row], Place | None]:
    """The rows of a page, and the place of its last one if more follow: the next page's cursor."""
    rows = list(found[:size])
    return rows, place(rows[-1]) if len(found) > size else None
