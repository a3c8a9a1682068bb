"""JSON schemas of users, and what models write for them: whatever either holds, there is a verdict,
in bounded time."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing.exceptions import Unresolvable

from prompts.patterns import PatternTimeoutError, found

DEEPEST = 64
"""Levels of objects and lists in a schema."""
_REFERENCES = ("$ref", "$dynamicRef")
_UNREADABLE = (ValueError, RecursionError, ArithmeticError, Unresolvable)


def check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as it came. Raises ValueError unless it is one of draft 2020-12 that refers to
    nothing but its own parts."""
    if deeper_than(schema, DEEPEST):
        raise ValueError(f"nested more than {DEEPEST} deep")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path)
        raise ValueError(f"no JSON schema, at {place or 'its root'}: {error.message}") from None
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(f"$ref {reference!r}: only references within it (#/...) are followed")
        if not _leads_somewhere(schema, reference):
            raise ValueError(f"$ref {reference!r} leads nowhere in it")
    return schema


def read_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, nothing too large for a number. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def misfit(schema: dict[str, Any], value: Any) -> str | None:
    """Where and why a schema doesn't take a value; None if it does."""
    try:
        error = best_match(_validator(json.dumps(schema)).iter_errors(value))
    except _UNREADABLE as problem:
        return f"it can't be compared with the schema: {str(problem)[:300]}"
    if error is None:
        return None
    place = "/".join(str(part) for part in error.absolute_path)
    return f"at {place or 'its root'}: {error.message[:300]}"


def deeper_than(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested more than so many levels deep."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [inner for one in layer for inner in _children(one)]
        if not layer:
            return False
    return True


def finite(text: str) -> float:
    """A number that a float can hold. Raises ValueError."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _children(value: Any) -> list[Any]:
    if not isinstance(value, dict | list | tuple):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [inner for inner in inside if isinstance(inner, dict | list | tuple)]


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (value[name] for name in _REFERENCES if isinstance(value.get(name), str))
    for inner in _children(value):
        yield from _references(inner)


def _leads_somewhere(schema: dict[str, Any], reference: str) -> bool:
    resolver = _validator(json.dumps(schema))._resolver
    try:
        found = resolver.lookup(reference).contents
    except (Unresolvable, ValueError, TypeError):  # The last two: through a list, text or number.
        return False
    return isinstance(found, dict | bool)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`pattern` as jsonschema has it, in bounded time."""
    if not isinstance(instance, str):
        return
    try:
        if not found(pattern, instance):
            yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")
    except PatternTimeoutError as error:
        yield ValidationError(str(error))


def _names(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`patternProperties` as jsonschema has it, in bounded time."""
    if not isinstance(instance, dict):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            try:
                if found(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)
            except PatternTimeoutError as error:
                yield ValidationError(str(error))


_Bounded = extend(Draft202012Validator, {"pattern": _pattern, "patternProperties": _names})


@lru_cache(maxsize=128)
def _validator(schema: str) -> Any:
    return _Bounded(json.loads(schema))
