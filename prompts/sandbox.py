"""The sandbox of templates: no way out of it, and no way to burn time or memory in it.

Templates come from users. What jinja2's own sandbox leaves open is closed here: loops over huge
ranges or nested without end, macros that call themselves, texts multiplied or padded to gigabytes.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_SOURCE = 100_000
LONGEST_TEXT = 4_000_000
"""Characters of a rendered prompt."""
LONGEST_RANGE = 1_000
LONGEST_PRODUCT = 10_000
"""Characters or entries that a multiplication may make."""
LARGEST_NUMBER = 10**12
DEEPEST_LOOP = 2
MOST_TURNS = 100_000
"""Of all loops together, in one prompt."""
LONGEST_CPU_S = 2.0
"""Of one prompt, by the processor's clock: a backstop behind the other bounds."""

_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Macro: "macros",
    nodes.CallBlock: "call blocks",
    nodes.Import: "imports",
    nodes.FromImport: "imports",
    nodes.Include: "includes",
    nodes.Extends: "extends",
    nodes.Block: "blocks",
}
_PADDING_FILTERS = ("center", "format", "indent", "batch", "slice", "xmlattr", "wordwrap")
_COUNTED = "counted"
_PADDING_METHODS = frozenset(
    {"center", "ljust", "rjust", "zfill", "format", "format_map", "expandtabs", "translate"}
)


class _Spent(threading.local):
    """What the prompt that this thread renders has cost so far."""

    turns = 0
    until_s = float("inf")


_spent = _Spent()


def begin() -> None:
    """A prompt is rendered from here on, in this thread."""
    _spent.turns, _spent.until_s = 0, time.thread_time() + LONGEST_CPU_S


def look_at_clock() -> None:
    """Raises SecurityError once the prompt has taken too long."""
    if time.thread_time() > _spent.until_s:
        raise SecurityError(f"it takes more than {LONGEST_CPU_S:g} s of processor time")


def count_turns(tree: nodes.Template) -> None:
    """Has every loop of a parsed template count its turns."""
    for loop in tree.find_all(nodes.For):
        where = loop.lineno
        loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=where)


def _counted(entries: Iterable[Any]) -> Iterator[Any]:
    for entry in entries:
        _spent.turns += 1
        if _spent.turns > MOST_TURNS:
            raise SecurityError(f"its loops take more than {MOST_TURNS:,} turns")
        look_at_clock()
        yield entry


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with bounds on what a template may make."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**` and `%` within bounds. Raises SecurityError."""
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("% on texts is not allowed; use ~ to join them")
        if operator == "*" and not _product_fits(left, right):
            raise SecurityError(f"a product of more than {LONGEST_PRODUCT:,} characters or entries")
        if operator == "**" and not _power_fits(left, right):
            raise SecurityError("a power that is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls but those that pad a text to any width. Raises SecurityError."""
        named = isinstance(function, BuiltinMethodType | FunctionType | MethodType)
        if named and function.__name__ in _PADDING_METHODS:
            raise SecurityError(f"{function.__name__}() is not allowed in templates")
        return super().call(context, function, *args, **kwargs)


def make_environment() -> Sandbox:
    """The one environment of all templates: a missing field is an error, nothing is escaped."""
    environment = Sandbox(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False
    )
    environment.globals["range"] = _short_range
    del environment.globals["lipsum"]
    environment.filters[_COUNTED] = _counted
    for name in _PADDING_FILTERS:
        del environment.filters[name]
    return environment


def forbidden(tree: nodes.Template) -> str | None:
    """What a template holds that none may; None if nothing."""
    for sort, name in _FORBIDDEN.items():
        found = tree.find(sort)
        if found is not None:
            return f"{name} are not allowed in templates (line {found.lineno})"
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            return f"recursive loops are not allowed in templates (line {loop.lineno})"
    if _depth(tree) > DEEPEST_LOOP:
        return f"loops nested more than {DEEPEST_LOOP} deep are not allowed in templates"
    return None


def _depth(node: nodes.Node) -> int:
    inner = max((_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise SecurityError(f"a range of {len(numbers):,} numbers; {LONGEST_RANGE:,} go")
    return numbers


def _product_fits(left: Any, right: Any) -> bool:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple):
            return isinstance(other, int) and len(one) * max(0, other) <= LONGEST_PRODUCT
    numbers = [abs(part) for part in (left, right) if isinstance(part, int)]
    return all(number <= LARGEST_NUMBER**2 for number in numbers)


def _power_fits(left: Any, right: Any) -> bool:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return False
    return abs(left) <= LARGEST_NUMBER and abs(right) <= 64
