"""A validator of JSON schemas that ends: its steps are counted, the clock is read at each, and no
step takes long by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from prompts.patterns import found

MOST_STEPS = 200_000
"""Keywords that are compared with a value or one of its parts."""
LONGEST_CPU_S = 5.0
"""A backstop behind the steps."""
LONGEST_MESSAGE = 1_000


class TooLongError(ValueError):
    """A value isn't compared with a schema to the end."""


class _Spent(threading.local):
    steps = 0
    until_s = float("inf")


_spent = _Spent()


def begin() -> None:
    """A value is compared from here on, in this thread."""
    _spent.steps, _spent.until_s = 0, time.thread_time() + LONGEST_CPU_S


def _counted(check: Any) -> Callable[..., Iterator[ValidationError]]:
    def counted(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _spent.steps += 1
        if _spent.steps > MOST_STEPS or time.thread_time() > _spent.until_s:
            raise TooLongError(f"it takes more than {MOST_STEPS:,} steps or {LONGEST_CPU_S:g} s")
        for error in check(validator, rule, value, schema) or ():
            error.message = error.message[:LONGEST_MESSAGE]  # It may hold the whole value.
            yield error

    return counted


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    """`pattern` as jsonschema has it; raises PatternTimeoutError."""
    if isinstance(value, str) and not found(pattern, value):
        yield ValidationError(f"{value[:100]!r} does not match {pattern!r}")


def _names(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """`patternProperties` as jsonschema has it; raises PatternTimeoutError."""
    for pattern, inner in patterns.items() if isinstance(value, dict) else ():
        for name, one in value.items():
            if found(pattern, name):
                yield from validator.descend(one, inner, path=name, schema_path=pattern)


def _others(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """`additionalProperties` as jsonschema has it; raises PatternTimeoutError."""
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, one in value.items():
        if name in known or any(found(pattern, name) for pattern in patterns):
            continue
        if rule is False:
            yield ValidationError(f"{name[:100]!r} is a property that it doesn't know")
        else:
            yield from validator.descend(one, rule, path=name)


def _unique(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """`uniqueItems` as jsonschema has it, in linear time."""
    if not rule or not isinstance(value, list):
        return
    seen = set()
    for place, one in enumerate(value):
        key = _key(one)
        if key in seen:
            yield ValidationError(f"has non-unique elements, such as number {place}")
            return
        seen.add(key)


def _key(value: Any) -> Any:
    """Equal for equal JSON values, and hashable: 1 is 1.0, and true is neither."""
    if isinstance(value, dict):
        return ("object", frozenset((name, _key(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return ("list", *map(_key, value))
    return (type(value), value) if value is None or isinstance(value, bool) else value


_OWN = {
    "pattern": _pattern,
    "patternProperties": _names,
    "additionalProperties": _others,
    "uniqueItems": _unique,
}
Bounded = extend(
    Draft202012Validator,
    {
        name: _counted(check)
        for name, check in (dict(Draft202012Validator.VALIDATORS) | _OWN).items()
    },
)
"""Draft 2020-12 in bounded time; `begin` before each value."""
