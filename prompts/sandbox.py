"""The sandbox of templates: no way out of it, and no way to burn time or memory in it.

Templates come from users. What jinja2's own sandbox leaves open is closed here: loops over huge
ranges or nested without end, macros that call themselves, texts multiplied or padded to gigabytes.

Whatever a template makes on its way counts, not its output alone: joined texts, lists, what filters
and methods return (prompts/spent.py). Where a step could make far more than it is given, what it
will make is counted first; so no value outgrows the bound by more than a small factor.
"""

from collections.abc import Callable
from functools import wraps
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer

from prompts.bounded import FILTERS, foresee_joined, foresee_replaced
from prompts.spent import begin, counted, look_at_clock, made, spend, weight

__all__ = [
    "LONGEST_SOURCE",
    "LONGEST_TEXT",
    "begin",
    "count_all",
    "forbidden",
    "look_at_clock",
    "make_environment",
]

LONGEST_SOURCE = 100_000
LONGEST_TEXT = 4_000_000
"""Characters of a rendered prompt."""
LONGEST_RANGE = 1_000
LONGEST_PRODUCT = 10_000
"""Characters or entries that a multiplication may make."""
LARGEST_NUMBER = 10**12
DEEPEST_LOOP = 2

_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Macro: "macros",
    nodes.CallBlock: "call blocks",
    nodes.Import: "imports",
    nodes.FromImport: "imports",
    nodes.Include: "includes",
    nodes.Extends: "extends",
    nodes.Block: "blocks",
    nodes.EvalContextModifier: "autoescape blocks",
}
_DROPPED_FILTERS = (
    *("center", "format", "indent", "batch", "slice", "xmlattr", "wordwrap"),
    # What takes long on a long text, all in one step.
    *("pprint", "striptags", "urlize"),
    "random",  # A row's prompt is the same whenever it is rendered.
)
_COUNTED, _MADE, _JOINED, _LOOKED = "counted", "made", "joined", "looked"
_GIVEN_BACK = frozenset({"attr", "d", "default", "first", "last", "max", "min"})
"""Filters that make nothing: they return what is there already."""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        {"capitalize", "casefold", "count", "endswith", "find", "index", "join", "lower", "lstrip"}
        | {"partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition"}
        | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title"}
        | {"upper", "isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric"}
        | {"isspace", "istitle", "isupper"}
    ),
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"count", "index", "copy"}),
    tuple: frozenset({"count", "index"}),
    float: frozenset({"is_integer"}),
    LoopContext: frozenset({"cycle", "changed"}),
    Cycler: frozenset({"next", "reset"}),
}
_VIEWS = frozenset({"get", "items", "keys", "values"})


class _Counting(NodeTransformer):
    """Has a parsed template count what it makes where no filter and no call does."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        texts = node.find_all(nodes.TemplateData) if isinstance(node, nodes.For) else ()
        written = sum(len(text.data) for text in texts)
        self.generic_visit(node)
        match node:
            case nodes.For():
                node.iter = _filtered(node.iter, _COUNTED, nodes.Const(written))
            case nodes.Compare():
                node.expr = _filtered(node.expr, _LOOKED)
            case nodes.Concat():
                return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load"):
                return _filtered(node, _MADE)
            case nodes.Getitem(arg=nodes.Slice()):
                return _filtered(node, _MADE)
        return node


def count_all(tree: nodes.Template) -> None:
    """Has a parsed template count its loops' turns and all that it makes."""
    _Counting().visit(tree)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox with bounds on what a template may make."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%` within bounds. Raises SecurityError."""
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("% on texts is not allowed; use ~ to join them")
        if operator == "*" and not _product_fits(left, right):
            raise SecurityError(f"a product of more than {LONGEST_PRODUCT:,} characters or entries")
        if operator == "**" and not _power_fits(left, right):
            raise SecurityError("a power that is too large")
        if operator == "+":
            spend(weight(left) + weight(right))
        if operator == "*":
            spend(_times(left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls of what can't make much, and of `replace` and `join` within bounds. Raises
        SecurityError."""
        look_at_clock()
        if isinstance(function, BuiltinMethodType | MethodType):
            return _called(super().call, context, function, args, kwargs)
        known = isinstance(function, Joiner) or function in self.globals.values()
        if isinstance(function, FunctionType) and not known:
            raise SecurityError(f"{function.__name__}() is not allowed in templates")
        if not known and not isinstance(function, jinja2.Undefined | LoopContext):
            raise SecurityError(f"a call of {type(function).__name__} is not allowed in templates")
        return made(super().call(context, function, *args, **kwargs))


def make_environment() -> Sandbox:
    """The one environment of all templates: a missing field is an error, nothing is escaped."""
    environment = Sandbox(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=False,
        finalize=_written,
    )
    environment.globals["range"] = _short_range
    for name in ("lipsum", "namespace"):
        del environment.globals[name]
    for name in _DROPPED_FILTERS:
        del environment.filters[name]
    environment.filters |= FILTERS
    for name, function in environment.filters.items():
        environment.filters[name] = _watched(function, counts=name not in _GIVEN_BACK)
    for name, function in environment.tests.items():
        environment.tests[name] = _watched(function, counts=False)
    own = {_COUNTED: counted, _MADE: made, _JOINED: _joined, _LOOKED: _looked}
    environment.filters |= own
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


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _watched(function: Any, counts: bool) -> Callable[..., Any]:
    @wraps(function)  # What it is passed beside its arguments is written on it.
    def watched(*args: Any, **kwargs: Any) -> Any:
        look_at_clock()
        result = function(*args, **kwargs)
        return made(result) if counts else result

    return watched


def _called(call: Any, context: Context, function: Any, args: Any, kwargs: Any) -> Any:
    owner, name = function.__self__, function.__name__
    if not any(isinstance(owner, sort) and name in names for sort, names in _METHODS.items()):
        raise SecurityError(f"{name}() is not allowed in templates")
    if isinstance(owner, str) and name == "replace":
        foresee_replaced(owner, *args, **kwargs)
    if isinstance(owner, str) and name == "join":
        args = (foresee_joined(owner, *args),)
    result = call(context, function, *args, **kwargs)
    return result if name in _VIEWS else made(result)


def _looked(value: Any) -> Any:
    look_at_clock()
    return value


def _written(value: Any) -> Any:
    spend(weight(value))
    return value


def _joined(parts: list[Any]) -> str:
    spend(weight(parts))
    return "".join(map(str, parts))


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise SecurityError(f"a range of {len(numbers):,} numbers; {LONGEST_RANGE:,} go")
    return numbers


def _times(left: Any, right: Any) -> int:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
            return weight(one) * max(0, other)
    return 0


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
