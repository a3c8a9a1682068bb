"""No dead option: another value of each field changes a plan, a result or an error."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from prompts.intake import check_build, read_pool
from prompts.plan import Request, TeacherFacts, make_plan
from prompts.record import Message
from prompts.spec import CotBuild, IclBuild, InstructionBuild, Sampling, Shots, Split
from prompts.tools import Tool
from tests.prompts.making import ask, labelled, lines_of, spec_of

ELSEWHERE = {
    "seeds": "which file the engine reads",
    "pool": "which file the engine reads; that its lines are all demonstrations: test_intake",
    "limit": "how many seeds the engine takes",
    "target_rows": "where the engine stops asking: dataset/test_first, workers/test_limits",
    "budget": "where the engine stops asking: workers/test_limits",
    "smoke": "whether the engine asks on: workers/test_limits",
    "teachers": "whom the engine asks: workers/test_several_teachers",
    "teachers_mode": "whom the engine asks: workers/test_several_teachers",
    "columns": "the seeds' fields: workers/test_sources",
    "incremental": "which seeds the engine asks for: workers/test_sources",
    "cache": "whether the engine asks: workers/test_cache",
    "max_in_flight": "the engine's window",
    "chunk_rows": "the engine's chunks",
    "deduplicate": "an argument of assemble: dataset/test_assemble",
    "name": "the published dataset's name: dataset/test_assemble",
    "kind": "the union's tag",
    "decontaminate": "which file the engine reads: test_plan, dataset/test_assemble",
    "near_duplicates": "an argument of assemble: dataset/test_assemble",
    "novelty": "an argument of assemble: dataset/test_assemble",
}
"""Fields that others act upon, and who."""

TALK = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
SEEDS = {
    "icl": [{**seed, "talk": TALK} for seed in labelled(60)],
    "cot": [
        {
            "id": f"q{i}",
            "question": f"{i}?",
            "answer": i,
            "other": i + 1,
            "hint": "h",
            "task": f"t{i % 2}",
            "talk": TALK,
        }
        for i in range(60)
    ],
    "if": [
        {"id": f"i{i}", "instruction": f"do {i}", "input": "x", "talk": TALK} for i in range(60)
    ],
}
REPLIES = {"icl": "out 1", "cot": "So: 99. The answer is {}.", "if": "done"}

CHANGES: dict[str, dict[str, Any]] = {
    "common": {
        "version": 2,
        "teacher": "other",
        "system": "Be brief.",
        "turns": "talk",
        "sampling": {"temperature": 0.5},
        "split": {"test": 0.5},
        "checks": [{"kind": "length", "max_characters": 3}],
        "signal": {"top_k": 4},
    },
    "shots": {
        "demonstrations": 3,
        "selector": "label_balanced",
        "group_by": "task",
        "selector_seed": 3,
        "fixed": "per_group",
        "order": "reversed",
        "demonstration_tokens": 7,
    },
    "icl": {
        "template": "{% for d in demonstrations %}{{ d.output }},{% endfor %}{{ input }}",
        "verify": True,
    },
    "cot": {
        "template": "Q: {{ question }}",
        "answer_pattern": r"So: (\d+)",
        "gold_field": "other",
        "verify": "none",
        "samples": 3,
        "min_agreement": 0.9,
        "rationalise": {},
    },
    "if": {"template": "{{ instruction }}!", "tools": [{"function": {"name": "look_up"}}]},
}
SHOWN = {
    "demonstrations": 4,
    "template": "{% for d in demonstrations %}{{ d.question }}={{ d.answer }},{% endfor %}"
    "{{ question }}",
}
BASES: dict[tuple[str, str], dict[str, Any]] = {
    **{("cot", field): SHOWN for field in CHANGES["shots"]},
    ("cot", "samples"): {"sampling": {"temperature": 1}},
    ("cot", "min_agreement"): {"sampling": {"temperature": 1}, "samples": 4},
}
"""What the spec says beside a field for it to mean anything."""


def changes(kind: str) -> dict[str, Any]:
    shots = {} if kind == "if" else CHANGES["shots"]
    return {**CHANGES["common"], **shots, **CHANGES[kind]}


def outcome(kind: str, **fields: Any) -> Any:
    """Everything that this room makes of a spec: requests and ends, or the error."""
    try:
        spec = spec_of(kind, **fields)
        lines = lines_of(*SEEDS[kind])
        check_build(spec, lines, lines)
        shown = isinstance(spec, Shots) and spec.demonstrations
        pool = read_pool(spec, lines) if isinstance(spec, IclBuild | CotBuild) and shown else None
        plan = make_plan(spec, pool, TeacherFacts("teacher", count_tokens=words_in))
    except ValueError as error:
        return str(error)
    return [
        ask(plan, seed, lambda request, number=number: reply_of(kind, request, number))
        for number, seed in enumerate(SEEDS[kind])
    ]


def words_in(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> int:
    return sum(len(re.split(r"[\s,=]+", message.content)) for message in messages)


def reply_of(kind: str, request: Request, number: int) -> str:
    """Right for most; the second sample of a row says something else."""
    return REPLIES[kind].format((number or 999) + (request.sample == 1))


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind in SEEDS for field in changes(kind)]
)
def test_every_field_matters(kind: str, field: str) -> None:
    base = BASES.get((kind, field), {})
    assert outcome(kind, **{**base, field: changes(kind)[field]}) != outcome(kind, **base)


@pytest.mark.parametrize("kind", list(SEEDS))
def test_no_field_is_forgotten(kind: str) -> None:
    spec = {"icl": IclBuild, "cot": CotBuild, "if": InstructionBuild}[kind]
    elsewhere = set(ELSEWHERE) ^ ({"pool", "method"} if kind == "if" else set())
    assert set(spec.model_fields) == elsewhere | set(changes(kind))


SAMPLING: dict[str, Any] = {
    "temperature": 1,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "max_tokens": 9,
    "min_tokens": 3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "stop": ["END"],
    "enable_thinking": False,
    "reasoning_effort": "low",
    "seed": 1,
}


@pytest.mark.parametrize("name", list(SAMPLING))
def test_every_sampling_parameter_is_asked_for(name: str) -> None:
    assert outcome("cot", sampling={name: SAMPLING[name]}) != outcome("cot")


@pytest.mark.parametrize("field", ["validation", "test"])
def test_every_share_moves_rows(field: str) -> None:
    assert outcome("cot", split={field: 0.4}) != outcome("cot")


def test_no_part_of_a_spec_is_forgotten() -> None:
    assert set(Sampling.model_fields) == set(SAMPLING)
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
        ("cot", {"sampling": {"min_tokens": 9, "max_tokens": 8}}, "min_tokens 9 is above"),
        ("cot", {"sampling": {"stop": [""]}}, "at least 1 character"),
        ("cot", {"sampling": {"guided_decoding": "x"}}, "Extra inputs"),
        ("cot", {"samples": 2}, "all be the same"),
        ("cot", {"min_agreement": 0.5}, "agrees with nobody"),
        ("cot", {"verify": "none", "rationalise": {}}, "known to be wrong"),
        ("cot", {"rationalise": {"hint": "Think."}}, "gold"),
        ("cot", {"verify": "numbers"}, "verify"),
        ("cot", {"verify": {"kind": "choice", "choices": ["a", "A"]}}, "must differ"),
        ("cot", {"verify": {"kind": "python", "function": "os.system"}}, "function"),
        ("icl", {"selector": "bm25", "fixed": "per_group"}, "looks at each row's query"),
        ("icl", {"selector": "embedding"}, "embedder"),
        ("icl", {"demonstrations": 0, "demonstration_tokens": 5}, "there are 0"),
        ("cot", {"demonstrations": 2, "template": "{{ question }}"}, "shows no demonstrations"),
        ("if", {"checks": [{"kind": "length"}]}, "needs min_tokens"),
        ("if", {"checks": [{"kind": "length", "min_tokens": 5, "max_tokens": 4}]}, "no row could"),
        ("if", {"checks": [{"kind": "regex"}]}, "must or must_not"),
        ("if", {"checks": [{"kind": "regex", "must": ["("]}]}, "no regular expression"),
        ("if", {"checks": [{"kind": "language", "languages": ["English"]}]}, "languages"),
        ("if", {"checks": [{"kind": "json_schema", "json_schema": {"type": 3}}]}, "no JSON schema"),
        (
            "if",
            {"checks": [{"kind": "json_schema", "json_schema": {"$ref": "http://x/y"}}]},
            "only references within",
        ),
        (
            "if",
            {"checks": [{"kind": "judge", "rubric": "r", "threshold": 11}]},
            "outside of the scale",
        ),
        (
            "if",
            {"checks": [{"kind": "judge", "rubric": "r", "threshold": 5, "template": "x"}]},
            "shows no completion",
        ),
        ("if", {"checks": [{"kind": "spelling"}]}, "kind"),
    ],
)
def test_a_bad_spec_is_refused(kind: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of(kind, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"template": "{{ question }}\0"}, "template: holds a NUL"),
        ({"system": "\ud800"}, "system: holds half of a surrogate pair"),
        ({"sampling": {"stop": ["\0"]}}, "sampling.stop.0: holds a NUL"),
        ({"seeds": [{"question": "a\udfff"}]}, "seeds.0.question: holds half"),
        ({"seeds": [{"que\0stion": "a"}]}, "seeds.0: a name in it holds a NUL"),
        ({"columns": {"a": "b\0"}}, "columns.a: holds a NUL"),
        ({"template": " \n"}, "the template is empty"),
        ({"name": "a/b"}, "name"),
        ({"name": "a@2"}, "name"),
        ({"name": ""}, "name"),
        ({"budget": {"wall_s": float("inf")}}, "budget.wall_s"),
        (
            {"checks": [{"kind": "judge", "rubric": "r", "threshold": 5, "highest": float("inf")}]},
            "checks.0.judge.highest",
        ),
    ],
)
def test_what_no_server_or_database_takes_is_refused_by_its_path(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of("cot", **fields)


def test_nests_without_end_are_refused() -> None:
    nest: Any = []
    for _ in range(5_000):
        nest = [nest]
    with pytest.raises(ValidationError, match="nested more than 128 deep"):
        spec_of("cot", seeds=[{"question": "a", "x": nest}])


JUDGE = {"kind": "judge", "rubric": "r", "threshold": 5}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"limit": 10**30}, "less than or equal to 2147483647"),
        ({"target_rows": 2**31, "incremental": True, "name": "d"}, "or equal to 2147483647"),
        ({"target_rows": 2, "budget": {"requests": 15}}, "target_rows of 2 .* 8 or more"),
        ({"budget": {"requests": 7}}, "a single row can't come of budget.requests 7"),
        ({"smoke": {"rows": 4}, "budget": {"requests": 31}}, "smoke.rows of 4 exceed"),
        ({"checks": [JUDGE], "budget": {"requests": 8}}, "a row takes 9 or more"),
    ],
)
def test_a_budget_that_no_row_fits_into_is_refused(fields: dict[str, Any], words: str) -> None:
    sampled = {"samples": 8, "sampling": {"temperature": 1.0}}
    with pytest.raises(ValidationError, match=words):
        spec_of("cot", **sampled, **fields)
    assert spec_of("cot", **sampled, target_rows=2, budget={"requests": 16})


def test_rows_that_are_taken_over_cost_none_of_the_budget() -> None:
    assert spec_of("cot", incremental=True, name="d", target_rows=1000, budget={"requests": 50})
    with pytest.raises(ValidationError, match=r"target_rows of 1000 can't come of budget"):
        spec_of("cot", target_rows=1000, budget={"requests": 50})


def test_more_rows_than_rounds_write_are_refused() -> None:
    method = {"kind": "magpie", "rounds": 2, "rows_per_round": 5}
    assert spec_of("if", seeds=(), method=method, target_rows=10)
    with pytest.raises(ValidationError, match="target_rows of 11 can't come of 2 rounds of 5"):
        spec_of("if", seeds=(), method=method, target_rows=11)
