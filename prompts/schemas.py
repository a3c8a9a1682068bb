"""JSON schemas of users, and what models write for them: whatever either holds, there is a verdict,
in bounded time."""

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing.exceptions import Unresolvable

from prompts.steps import Bounded, begin

DEEPEST = 64
"""Levels of objects and lists in a schema."""
MOST_PARTS = 10_000
"""That references and combinations (allOf and its like) may unfold to, for one value."""
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
    if any("$schema" in part for part in _objects(schema) if part is not schema):
        raise ValueError("$schema: a part of a schema can't be of another draft")
    named = {name for part in _objects(schema) for name in part}
    if {"unevaluatedProperties", "patternProperties"} <= named:
        raise ValueError("unevaluatedProperties can't stand in one schema with patternProperties")
    _check_unfolded(schema)
    return schema


def read_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, nothing too large for a number. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def misfit(schema: dict[str, Any], value: Any) -> str | None:
    """Where and why a schema doesn't take a value; None if it does."""
    begin()
    try:
        error = best_match(_validator(json.dumps(schema)).iter_errors(value))
    except _UNREADABLE as problem:
        return f"it can't be compared with the schema: {str(problem)[:300]}"
    if error is None:
        return None
    place = "/".join(str(part) for part in error.absolute_path)
    return f"at {place or 'its root'}: {error.message[:300]}"


def _check_unfolded(schema: dict[str, Any]) -> None:
    """Raises ValueError if its references come back to themselves or unfold without measure."""
    resolver, known = _validator(json.dumps(schema))._resolver, dict[str, int]()

    def parts(part: Any, above: tuple[str, ...]) -> int:
        if not isinstance(part, dict):
            return 1
        name = json.dumps(part, sort_keys=True)
        if name in above:
            raise ValueError("$ref: it leads back to itself before any value is looked into")
        if name not in known:
            inner = _in_place(part, resolver)
            known[name] = 1 + sum(parts(one, (*above, name)) for one in inner)
        if known[name] > MOST_PARTS:
            raise ValueError(
                f"its references and combinations unfold to more than {MOST_PARTS:,} parts"
            )
        return known[name]

    try:
        for part in _objects(schema):
            parts(part, ())
    except RecursionError:
        raise ValueError("its references make too long a chain") from None


def _in_place(part: dict[str, Any], resolver: Any) -> Iterator[Any]:
    """The parts of a schema that look at the same value as it does."""
    for name in _REFERENCES:
        if isinstance(part.get(name), str):
            yield resolver.lookup(part[name]).contents
    for name in ("allOf", "anyOf", "oneOf"):
        if isinstance(part.get(name), list):
            yield from part[name]
    for name in ("not", "if", "then", "else"):
        if name in part:
            yield part[name]
    if isinstance(part.get("dependentSchemas"), dict):
        yield from part["dependentSchemas"].values()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in _children(value):
        yield from _objects(inner)


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


@lru_cache(maxsize=128)
def _validator(schema: str) -> Any:
    return Bounded(json.loads(schema))
