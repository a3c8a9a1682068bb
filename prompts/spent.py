"""What rendering a prompt has cost so far: turns of loops, things made on the way, time."""

import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from types import SimpleNamespace
from typing import Any

from jinja2.exceptions import SecurityError

MOST_MADE = 16_000_000
"""Characters of all that one prompt's template makes on its way."""
MOST_TURNS = 100_000
"""Of all loops together, in one prompt."""
LONGEST_CPU_S = 2.0
"""Of one prompt, by the processor's clock: a backstop behind the other bounds."""
ENTRY = 16
"""Characters that an entry of a list counts for, beside its own."""

_LISTS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


class _Spent(threading.local):
    """What the prompt that this thread renders has cost so far."""

    turns = 0
    made = 0
    until_s = float("inf")


_spent = _Spent()


def begin() -> None:
    """A prompt is rendered from here on, in this thread."""
    _spent.turns, _spent.made, _spent.until_s = 0, 0, time.thread_time() + LONGEST_CPU_S


def look_at_clock() -> None:
    """Raises SecurityError once the prompt has taken too long."""
    if time.thread_time() > _spent.until_s:
        raise SecurityError(f"it takes more than {LONGEST_CPU_S:g} s of processor time")


def spend(characters: int) -> None:
    """Counts what is made, or is about to be. Raises SecurityError once it is too much."""
    look_at_clock()
    _spent.made += characters
    if _spent.made > MOST_MADE:
        raise SecurityError(f"it makes more than {MOST_MADE:,} characters on its way")


def made(value: Any) -> Any:
    """The value, counted. Raises SecurityError once it is too much."""
    spend(weight(value))
    return value


def counted(entries: Iterable[Any], characters: int) -> Iterator[Any]:
    """A loop's entries, each of which counts as a turn that writes so many characters."""
    for entry in entries:
        _spent.turns += 1
        if _spent.turns > MOST_TURNS:
            raise SecurityError(f"its loops take more than {MOST_TURNS:,} turns")
        spend(characters)
        yield entry


def weight(value: Any) -> int:
    """Characters that a value would take if it was written out, at most a little more than
    `MOST_MADE`: what it holds twice counts twice."""
    if isinstance(value, str | bytes):
        return len(value)
    total, left = 0, [value]
    while left and total <= MOST_MADE:
        one = left.pop()
        if isinstance(one, str | bytes):
            total += len(one)
        elif (inside := _inside(one)) is not None:
            total += ENTRY * len(inside)
            if total <= MOST_MADE:
                left.extend(inside)
    return total


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, SimpleNamespace):
        return list(vars(value).values())
    return value if isinstance(value, _LISTS) else None
