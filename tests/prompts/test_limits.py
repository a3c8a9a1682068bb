"""Budgets, gates and targets that can't be are refused with the place of what is wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from prompts.limits import TeacherShare, teacher_of
from prompts.spec import CotBuild

BUILD = {"kind": "cot", "teacher": "t", "seeds": "s"}
TWO = [{"name": "t"}, {"name": "u"}]


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"target_rows": 0}, ("target_rows",), "greater than or equal to 1"),
        ({"budget": {}}, ("budget",), "an empty budget"),
        ({"budget": {"requests": 0}}, ("budget", "requests"), "greater than or equal to 1"),
        ({"budget": {"price": 0}}, ("budget", "price"), "greater than 0"),
        ({"budget": {"tokens": 5, "prompt_tokens": 6}}, ("budget",), "can't be reached"),
        ({"smoke": {"rows": 0}}, ("smoke", "rows"), "greater than or equal to 1"),
        ({"smoke": {"min_accepted": 0}}, ("smoke", "min_accepted"), "greater than 0"),
        ({"smoke": {"min_accepted": 1.1}}, ("smoke", "min_accepted"), "less than or equal to 1"),
        ({"limit": 5, "target_rows": 6}, (), "can't come of a limit of 5"),
        ({"budget": {"requests": 5}, "target_rows": 6}, (), "budget.requests 5"),
        ({"budget": {"requests": 5}, "smoke": {"rows": 6}}, (), "smoke.rows of 6"),
        ({"teachers": [{"name": "u"}]}, (), "teacher: it is 't', the first of teachers 'u'"),
        ({"teachers": [*TWO, {"name": "t"}]}, (), "a name comes twice"),
        ({"teachers_mode": "fallback"}, (), "needs two teachers"),
        ({"teachers": [{"name": "t", "weight": 0}]}, ("teachers", 0, "weight"), "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], place: Any, words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        CotBuild.model_validate(BUILD | fields)
    (error,) = raised.value.errors()
    assert error["loc"] == place
    assert words in error["msg"]


def test_the_first_of_several_is_the_teacher() -> None:
    given = {name: value for name, value in BUILD.items() if name != "teacher"}
    spec = CotBuild.model_validate(given | {"teachers": TWO, "teachers_mode": "fallback"})
    assert spec.teacher == "t"
    assert CotBuild.model_validate(spec.model_dump()) == spec


def test_rows_keep_their_teacher_and_weights_count() -> None:
    shares = (TeacherShare(name="a", weight=1), TeacherShare(name="b", weight=3))
    given = [teacher_of(shares, f"r{n}") for n in range(2000)]
    assert given == [teacher_of(shares, f"r{n}") for n in range(2000)]
    assert 0.7 < given.count("b") / 2000 < 0.8
