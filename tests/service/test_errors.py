"""Where a request is wrong, by the path that its writer sees."""

from typing import Any

import httpx
import pytest

from tests.service.given import build

SAMPLED = {"samples": 2, "sampling": {"temperature": 1.0}}


@pytest.mark.parametrize(
    ("fields", "location", "words"),
    [
        ({"limit": 3, "target_rows": 4}, "build.target_rows", "can't come of a limit of 3"),
        ({"budget": {"requests": 1}} | SAMPLED, "build.budget.requests", "takes 2 or more"),
        ({"budget": {"requests": 9}, "smoke": {"rows": 10}}, "build.smoke.rows", "exceed budget"),
        ({"samples": 2}, "build.samples", "they would all be the same"),
        ({"min_agreement": 0.5}, "build.min_agreement", "agrees with nobody"),
        ({"demonstrations": 2, "template": "{{ question }}"}, "build.template", "loop over them"),
        ({"template": "{{ question }}\0"}, "build.template", "holds a NUL"),
        ({"seeds": [{"question": ["a\0"]}]}, "build.seeds.0.question.0", "holds a NUL"),
        ({"seeds": [{"q\0": "a"}]}, "build.seeds.0", "a name in it holds a NUL"),
        ({"sampling": {"min_tokens": 900}}, "build.sampling.min_tokens", "truncated"),
        (
            {"checks": [{"kind": "length", "min_tokens": 9, "max_tokens": 8}]},
            "build.checks.0.min_tokens",
            "no row could pass",
        ),
        ({"near_duplicates": {"jaccard": 1}}, "build.near_duplicates.jaccard", "less than 1"),
    ],
)
async def test_limits_that_contradict_each_other_are_named(
    api: httpx.AsyncClient, seeds: str, fields: dict[str, Any], location: str, words: str
) -> None:
    given = {"kind": "build", "build": build(seeds) | fields}
    answer = await api.post("/api/v1/jobs", json=given)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["location"] == location
    assert words in fault["message"]
