"""Schemas that can't work are refused; what a model writes always gets a verdict."""

import time
from typing import Any

import pytest

from prompts.schemas import check_schema, misfit, read_json


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(2_000), "nested more than 64 deep"),
        ({"type": "nope"}, "no JSON schema, at type"),
        ({"$ref": "http://example.com/x"}, "only references within it"),
        ({"items": {"$dynamicRef": "x.json"}}, "only references within it"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}}, "leads nowhere"),
        ({"$ref": "#name"}, "leads nowhere"),
        ({"minLength": 3, "$ref": "#/minLength/x"}, "leads nowhere"),
        ({"type": "string", "$ref": "#/type/x"}, "leads nowhere"),
        ({"title": "t", "$ref": "#/title"}, "leads nowhere"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "leads back to itself"),
        (
            {
                "$defs": {
                    f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)
                }
                | {"d40": {"type": "string"}},
                "$ref": "#/$defs/d0",
            },
            "unfold to more than 10,000 parts",
        ),
        ({"items": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "another draft"),
        (
            {"patternProperties": {"(a|aa)+$": {}}, "unevaluatedProperties": False},
            "can't stand in one schema",
        ),
    ],
)
def test_schemas_that_cannot_work_are_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_schema(schema)


def test_references_within_are_followed() -> None:
    schema = {"$defs": {"a": {"type": "integer"}}, "items": {"$ref": "#/$defs/a"}}
    assert misfit(check_schema(schema), [1, 2]) is None
    assert "at 1: 'x' is not of type" in (misfit(schema, [1, "x"]) or "")


@pytest.mark.parametrize("text", ["1e400", "NaN", "[-Infinity]", "9" * 5_000, "[" * 100_000])
def test_what_is_no_number_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_json(text)


def test_a_schema_that_refers_to_itself_without_end_gives_a_verdict() -> None:
    assert "can't be compared" in (misfit({"$ref": "#"}, {}) or "")


@pytest.mark.slow
def test_a_value_that_unfolds_a_schema_without_end_gives_a_verdict() -> None:
    schema = check_schema({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}})
    value: Any = 1
    for _ in range(40):
        value = {"a": value}
    begun = time.process_time()
    assert "more than 200,000 steps" in (misfit(schema, value) or "")
    assert misfit(schema, {"a": {"a": 1}}) is None
    assert time.process_time() - begun < 30


def test_unique_entries_are_told_in_linear_time() -> None:
    schema = check_schema({"uniqueItems": True})
    begun = time.process_time()
    assert misfit(schema, [{"n": n} for n in range(20_000)]) is None
    assert time.process_time() - begun < 5
    for equal in ([1, 1.0], [{"a": 1, "b": []}, {"b": [], "a": 1}], [None, None], [[True], [True]]):
        assert "non-unique" in (misfit(schema, equal) or "")
    differing: list[list[Any]] = [
        [1, True],
        [0, False],
        [[1], [True]],
        ["1", 1],
        [[], {}],
        [None, "null"],
    ]
    for different in differing:
        assert misfit(schema, different) is None


def test_other_names_are_looked_at() -> None:
    known: dict[str, Any] = {"properties": {"a": {}}, "patternProperties": {"^n": {}}}
    none = check_schema(known | {"additionalProperties": False})
    assert misfit(none, {"a": 1, "n1": 1}) is None
    assert "'z' is a property that it doesn't know" in (misfit(none, {"z": 1}) or "")
    numbers = check_schema(known | {"additionalProperties": {"type": "integer"}})
    assert "at z: 'x' is not of type" in (misfit(numbers, {"a": "x", "z": "x"}) or "")


@pytest.mark.slow
def test_patterns_that_explode_end() -> None:
    begun = time.process_time()
    text = "a" * 40 + "!"
    assert "was not done" in (misfit({"pattern": "(a|aa)+$"}, text) or "")
    assert "was not done" in (misfit({"patternProperties": {"(a|aa)+$": {}}}, {text: 1}) or "")
    others = {"patternProperties": {"(a|aa)+$": {}}, "additionalProperties": False}
    assert "was not done" in (misfit(others, {text: 1}) or "")
    assert time.process_time() - begun < 30


def test_names_by_pattern_are_looked_at() -> None:
    schema = check_schema({"patternProperties": {"^n": {"type": "integer"}}})
    assert misfit(schema, {"n1": 1, "other": "x"}) is None
    assert "at n1: 'x' is not of type" in (misfit(schema, {"n1": "x"}) or "")
