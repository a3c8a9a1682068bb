"""No dead option: another value of each field changes a plan, a result or an error."""

from typing import Any

import pytest
from pydantic import ValidationError

from prompts.intake import check_build, read_pool
from prompts.plan import TeacherFacts, make_plan
from prompts.spec import CotBuild, IclBuild, InstructionBuild, Sampling, Split
from tests.prompts.making import labelled, lines_of, said, spec_of

ELSEWHERE = {
    "seeds": "which file the engine reads",
    "pool": "which file the engine reads; that its lines are all demonstrations: test_intake",
    "limit": "how many seeds the engine takes",
    "target_rows": "where the engine stops asking: dataset/test_first, workers/test_limits",
    "budget": "where the engine stops asking: workers/test_limits",
    "smoke": "whether the engine asks on: workers/test_limits",
    "teachers": "whom the engine asks: workers/test_several_teachers",
    "teachers_mode": "whom the engine asks: workers/test_several_teachers",
    "cache": "whether the engine asks: workers/test_cache",
    "max_in_flight": "the engine's window",
    "chunk_rows": "the engine's chunks",
    "deduplicate": "an argument of assemble: dataset/test_assemble",
    "name": "the published dataset's name: dataset/test_assemble",
    "kind": "the union's tag",
}
"""Fields that others act upon, and who."""

SEEDS = {
    "icl": labelled(60),
    "cot": [
        {"id": f"q{i}", "question": f"{i}?", "answer": i, "other": i + 1, "hint": "h"}
        for i in range(60)
    ],
    "if": [{"id": f"i{i}", "instruction": f"do {i}", "input": "x"} for i in range(60)],
}
REPLIES = {"icl": "out 1", "cot": "So: 99. The answer is {}.", "if": "done"}

CHANGES: dict[str, dict[str, Any]] = {
    "common": {
        "version": 2,
        "teacher": "other",
        "system": "Be brief.",
        "sampling": {"temperature": 0.5},
        "split": {"test": 0.5},
    },
    "icl": {
        "demonstrations": 2,
        "selector": "nearest",
        "group_by": "task",
        "selector_seed": 3,
        "template": "{% for d in demonstrations %}{{ d.output }},{% endfor %}{{ input }}",
        "verify": True,
    },
    "cot": {
        "template": "Q: {{ question }}",
        "answer_pattern": r"So: (\d+)",
        "gold_field": "other",
        "verify": "none",
    },
    "if": {"template": "{{ instruction }}!"},
}


def outcome(kind: str, **fields: Any) -> Any:
    """Everything that this room makes of a spec: requests and ends, or the error."""
    try:
        spec = spec_of(kind, **fields)
        lines = lines_of(*SEEDS[kind])
        check_build(spec, lines, lines)
        pool = read_pool(spec, lines) if isinstance(spec, IclBuild) else None
        plan = make_plan(spec, pool, TeacherFacts("teacher"))
    except ValueError as error:
        return str(error)
    rows = SEEDS[kind]
    asked = [plan.next(seed, []) for seed in rows]
    replies = [REPLIES[kind].format(number or 999) for number in range(len(rows))]
    return asked, [plan.next(*pair) for pair in zip(rows, map(said, rows, replies), strict=True)]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in SEEDS for field in {**CHANGES["common"], **CHANGES[kind]}],
)
def test_every_field_matters(kind: str, field: str) -> None:
    value = {**CHANGES["common"], **CHANGES[kind]}[field]
    assert outcome(kind, **{field: value}) != outcome(kind)


@pytest.mark.parametrize("kind", list(SEEDS))
def test_no_field_is_forgotten(kind: str) -> None:
    spec = {"icl": IclBuild, "cot": CotBuild, "if": InstructionBuild}[kind]
    assert set(spec.model_fields) == {*ELSEWHERE, *CHANGES["common"], *CHANGES[kind]} - (
        set() if kind == "icl" else {"pool"}
    )


@pytest.mark.parametrize(
    "change",
    [{"temperature": 1}, {"top_p": 0.5}, {"max_tokens": 9}, {"seed": 1}, {"logprobs": 3}],
    ids=lambda change: next(iter(change)),
)
def test_every_sampling_parameter_is_asked_for(change: dict[str, Any]) -> None:
    assert outcome("cot", sampling=change) != outcome("cot")


@pytest.mark.parametrize("field", ["validation", "test"])
def test_every_share_moves_rows(field: str) -> None:
    assert outcome("cot", split={field: 0.4}) != outcome("cot")


def test_no_part_of_a_spec_is_forgotten() -> None:
    assert set(Sampling.model_fields) == {"temperature", "top_p", "max_tokens", "seed", "logprobs"}
    assert set(Split.model_fields) == {"validation", "test"}


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("cot", {"answer_pattern": "("}, "no regular expression"),
        ("cot", {"answer_pattern": "x"}, "exactly one group"),
        ("cot", {"template": "{{ a"}, "line 1"),
        ("if", {"system": "{% if %}"}, "line 1"),
        ("icl", {"template": "{{ input }}"}, "shows no demonstrations"),
        ("icl", {"tempalte": ""}, "Extra inputs"),
        ("nothing", {}, "kind"),
        ("cot", {"split": {"validation": 0.6, "test": 0.5}}, "nothing to train on"),
    ],
)
def test_a_bad_spec_is_refused(kind: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of(kind, **fields)
