"""Jinja2's filters that could make far more than they are given, within bounds."""

from collections.abc import Callable, Iterable
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJAS
from jinja2.filters import make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.utils import pass_eval_context

from prompts.schemas import deeper_than
from prompts.spent import made, spend, weight

LONGEST_NUMERAL = 1_000
MOST_DIGITS = 100
LONGEST_TITLE = 100_000
"""Characters: the filter takes a text apart by its words."""
WIDEST_INDENT = 8
"""Spaces of a level of `tojson`, and levels that may be indented so."""


def foresee_replaced(text: str, old: str, new: str, count: int | None = None) -> None:
    """Counts what `replace` adds. Raises SecurityError if that is too much."""
    times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    spend(max(0, times * (len(new) - len(old))))


def foresee_joined(between: str, parts: Iterable[Any]) -> list[Any]:
    """The parts of a join, counted with what stands between them."""
    kept = [made(part) for part in parts]
    spend(len(between) * len(kept))
    return kept


@pass_eval_context
def _replace(context: EvalContext, text: Any, old: Any, new: Any, count: int | None = None) -> Any:
    spend(weight(text))
    text, old, new = str(text), str(old), str(new)
    foresee_replaced(text, old, new, count)
    return JINJAS["replace"](context, text, old, new, count)


@pass_eval_context
def _join(context: EvalContext, value: Any, d: Any = "", attribute: str | int | None = None) -> Any:
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return JINJAS["join"](context, foresee_joined(str(d), value), str(d))


@pass_eval_context
def _tojson(context: EvalContext, value: Any, indent: int | None = None) -> Any:
    spend(weight(value))
    if indent is not None and (indent > WIDEST_INDENT or deeper_than(value, WIDEST_INDENT)):
        raise SecurityError(f"tojson: {WIDEST_INDENT} levels of {WIDEST_INDENT} spaces go")
    return JINJAS["tojson"](context, value, indent)


def _string(value: Any) -> Any:
    spend(weight(value))
    return JINJAS["string"](value)


def _title(value: Any) -> Any:
    if weight(value) > LONGEST_TITLE:
        raise SecurityError(f"title: {LONGEST_TITLE:,} characters go")
    return JINJAS["title"](value)


def _int(value: Any, default: int = 0, base: int = 10) -> Any:
    if isinstance(value, str | bytes) and len(value) > LONGEST_NUMERAL:
        raise SecurityError(f"a number of {len(value):,} characters; {LONGEST_NUMERAL:,} go")
    return JINJAS["int"](value, default, base)


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > MOST_DIGITS:
        raise SecurityError(f"round: {MOST_DIGITS} digits go")
    return JINJAS["round"](value, precision, method)


@pass_eval_context
def _sum(
    context: EvalContext, iterable: Any, attribute: str | int | None = None, start: Any = 0
) -> Any:
    if not isinstance(start, int | float):
        raise SecurityError("sum is of numbers; use + or ~ for lists and texts")
    if attribute is not None:
        iterable = map(make_attrgetter(context.environment, attribute), iterable)
    return sum(iterable, start)


FILTERS: dict[str, Callable[..., Any]] = {
    "replace": _replace,
    "join": _join,
    "tojson": _tojson,
    "string": _string,
    "title": _title,
    "int": _int,
    "round": _round,
    "sum": _sum,
}
"""Filters that could make far more than they are given, within bounds."""
