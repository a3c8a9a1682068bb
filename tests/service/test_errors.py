"""Where a request is wrong, by the path that its writer sees."""

from typing import Any

import httpx
import pytest

from service.app import create_app
from service.site import Site
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


NUL_PLACES = (
    "/api/v1/jobs?cursor=%00",
    "/api/v1/jobs/%00",
    "/api/v1/datasets/%00",
    "/api/v1/files?name=%00",
    "/api/v1/teachers/%00",
    "/jobs?cursor=%00",
    "/keys/%00",
    "/v1/files?after=%00",
    "/v1/models/%00",
    "/v1/fine_tuning/jobs?after=%00",
)
NUL_BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/v1/keys", {"name": "a\0"}),
    (
        "/api/v1/teachers?check=false",
        {"name": "t", "base_url": "http://127.0.0.1:9", "served_model": "m\0"},
    ),
    ("/api/v1/jobs", {"kind": "serve", "model": "m", "name": "x\0"}),
    ("/v1/chat/completions", {"model": "\0", "messages": [{"role": "user", "content": "x"}]}),
)


async def test_a_nul_is_no_fault_of_ours_on_either_database(any_site: Site) -> None:
    app = create_app(any_site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = any_site
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        asked = {place: (await client.get(place)).status_code for place in NUL_PLACES}
        # SQLite stores them.
        sent = {place: await client.post(place, json=body) for place, body in NUL_BODIES}
    assert set(asked.values()) == {400, 422}, asked
    assert {place: one.text for place, one in sent.items() if one.status_code >= 500} == {}
