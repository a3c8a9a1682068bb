"""A method's own words are refused at submit, by their path in the request."""

from typing import Any

import httpx
import pytest

from tests.service.test_api import faults


@pytest.mark.parametrize(
    ("method", "location", "words"),
    [
        (
            {"kind": "self_instruct", "prompts": {"write": "{{ topic }} {{ tasks }}"}},
            "build.method.prompts.write",
            "shows topic; there is tasks, number",
        ),
        (
            {"kind": "self_instruct", "prompts": {"label": "{{ instruction"}},
            "build.method.prompts.label",
            "syntax error in line 1",
        ),
        (
            {"kind": "evol_instruct", "prompts": {"rewrite": "{{ instruction }}"}},
            "build.method.prompts.rewrite",
            "doesn't show how",
        ),
        (
            {"kind": "evol_instruct", "prompts": {"widen": "More."}},
            "build.method.prompts.widen",
            "",
        ),
    ],
    ids=["unknown field", "syntax", "not shown", "no such operator"],
)
async def test_words_that_can_not_work_are_refused_by_their_path(
    api: httpx.AsyncClient, method: dict[str, Any], location: str, words: str
) -> None:
    build = {"kind": "if", "teacher": "t", "seeds": "file-x", "method": method}
    found = faults(await api.post("/api/v1/jobs", json={"kind": "build", "build": build}))
    assert list(found) == [location]
    assert words in found[location]
