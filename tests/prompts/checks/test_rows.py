"""Checks that a spec lists."""

import time
from typing import Any

import pytest

from prompts.checks.spec import CheckSpec, JudgeCheck
from prompts.intake import SpecError, check_build
from prompts.record import Reason, Record, Rejected
from tests.prompts.making import ask, lines_of, plan_of, spec_of

SEED = {"id": "i", "instruction": "Say something."}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"pattern": "^a+$"}},
    "required": ["n"],
}
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, und der Hund schläft weiter."


def outcome(check: dict[str, Any], text: str) -> Record | Rejected:
    return ask(plan_of(spec_of("if", checks=[check])), SEED, lambda request: text)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        ({"kind": "length", "min_characters": 5}, "1234", Reason.LENGTH),
        ({"kind": "length", "min_characters": 5}, "12345", None),
        ({"kind": "length", "max_characters": 5}, "123456", Reason.LENGTH),
        ({"kind": "length", "min_tokens": 3}, "one two", Reason.LENGTH),
        ({"kind": "length", "max_tokens": 3}, "one two three four", Reason.LENGTH),
        ({"kind": "length", "max_tokens": 3}, "one two three", None),
        ({"kind": "language", "languages": ["en"]}, GERMAN, Reason.LANGUAGE),
        ({"kind": "language", "languages": ["en", "de"]}, GERMAN, None),
        (
            {"kind": "language", "languages": ["de"], "min_probability": 1},
            "ja " + "x1" * 3,
            Reason.LANGUAGE,
        ),
        ({"kind": "regex", "must": [r"\d"]}, "none", Reason.PATTERN),
        ({"kind": "regex", "must": [r"\d", "n"]}, "no 1", None),
        ({"kind": "regex", "must_not": ["(?i)as an ai"]}, "Well, as an AI", Reason.PATTERN),
        ({"kind": "json_schema", "json_schema": SCHEMA}, '{"n": 1}', None),
        ({"kind": "json_schema", "json_schema": SCHEMA}, '```json\n{"n": 2}\n```', None),
        ({"kind": "json_schema", "json_schema": SCHEMA}, '{"n": 0}', Reason.JSON_SCHEMA),
        ({"kind": "json_schema", "json_schema": SCHEMA}, '{"n": 1, "s": "b"}', Reason.JSON_SCHEMA),
        ({"kind": "json_schema", "json_schema": SCHEMA}, "n is 1", Reason.JSON_SCHEMA),
        ({"kind": "json_schema", "json_schema": SCHEMA}, "[" * 100_000, Reason.JSON_SCHEMA),
        ({"kind": "refusal", "phrases": ["Leider"]}, "leider nein", Reason.REFUSAL),
        ({"kind": "refusal", "phrases": ["Leider"]}, "Nein, leider", None),
        ({"kind": "refusal", "phrases": ["leider"], "anywhere": True}, "Oh Leider", Reason.REFUSAL),
        ({"kind": "personal_data"}, "Write to bob@example.com.", Reason.PERSONAL_DATA),
        ({"kind": "personal_data"}, "Call +1 212-555-0123 now.", Reason.PERSONAL_DATA),
        ({"kind": "personal_data"}, "Card 4111 1111 1111 1111.", Reason.PERSONAL_DATA),
        ({"kind": "personal_data", "min_score": 0.9}, "Call +1 212-555-0123 now.", None),
        ({"kind": "personal_data", "entities": ["IBAN_CODE"]}, "bob@example.com", None),
        ({"kind": "personal_data", "action": "off"}, "bob@example.com", None),
        ({"kind": "personal_data"}, "Room 12 at 10:30, see page 400.", None),
    ],
)
def test_what_a_check_rejects(check: dict[str, Any], text: str, reason: Reason | None) -> None:
    row = outcome(check, text)
    if reason is None:
        assert isinstance(row, Record), row
        return
    assert isinstance(row, Rejected)
    assert row.reason == reason
    assert row.detail
    assert row.raw == (text,)


def test_personal_data_may_only_be_flagged_and_is_never_quoted() -> None:
    row = outcome({"kind": "personal_data", "action": "flag"}, "bob@example.com")
    assert isinstance(row, Record)
    assert row.flags == ("personal_data",)
    rejected = outcome({"kind": "personal_data"}, "bob@example.com")
    assert isinstance(rejected, Rejected)
    assert rejected.detail == "1 x EMAIL_ADDRESS"


def test_the_first_check_that_objects_gives_the_reason() -> None:
    checks = [{"kind": "regex", "must": ["x"]}, {"kind": "length", "min_characters": 99}]
    for order in (checks, checks[::-1]):
        _, row = ask(plan_of(spec_of("if", checks=order)), SEED, lambda request: "short")
        assert isinstance(row, Rejected)
        assert row.reason == {"regex": "pattern", "length": "length"}[str(order[0]["kind"])]


@pytest.mark.slow
def test_a_pattern_that_explodes_ends_with_a_verdict() -> None:
    started = time.process_time()
    row = outcome({"kind": "regex", "must": ["^(([a-z])+.)+[A-Z]([a-z])+$"]}, "a" * 5_000)
    assert isinstance(row, Rejected)
    assert row.reason == Reason.PATTERN
    assert time.process_time() - started < 20  # Without the bound: longer than anyone waits.


def test_a_structured_schema_is_what_the_server_is_told() -> None:
    check = {"kind": "json_schema", "json_schema": SCHEMA}
    for structured, expected in ((True, SCHEMA), (False, None)):
        plan = plan_of(spec_of("if", checks=[{**check, "structured": structured}]))
        asked, _ = ask(plan, SEED, lambda request: '{"n": 1}')
        assert asked[0].schema == expected


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ([{"kind": "language", "languages": ["zz"]}], "checks.0.languages: unknown: zz"),
        (
            [{"kind": "length", "max_tokens": 5}, {"kind": "length", "min_tokens": 300}],
            "checks.1.min_tokens: 300 is above sampling.max_tokens 256",
        ),
        (
            [{"kind": "json_schema", "json_schema": {}, "structured": True}] * 2,
            "checks.1.structured: a server keeps to one schema",
        ),
        (
            [
                {
                    "kind": "judge",
                    "rubric": "r",
                    "threshold": 5,
                    "template": "{{ completion }}{{ seed.missing }}",
                }
            ],
            "checks.0.template: .*missing",
        ),
    ],
)
def test_a_check_that_no_row_can_pass_is_refused_by_its_path(
    checks: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        check_build(spec_of("if", checks=checks), lines_of(SEED))


JUDGE = {"kind": "judge", "rubric": "Is it kind?", "threshold": 6}


@pytest.mark.parametrize(
    ("reply", "reason", "score"),
    [
        ('{"reason": "kind", "score": 6}', None, 6.0),
        ('{"reason": "rude", "score": 5.5}', Reason.LOW_SCORE, 5.5),
        ('Well. {"reason": "kind", "score": 9}', None, 9.0),
        ("<think>score: 1</think>Kind. Score: 8/10", None, 8.0),
        ("No score from me", Reason.NO_SCORE, None),
        ('{"score": 11}', Reason.NO_SCORE, None),
        ('{"score": true}', Reason.NO_SCORE, None),
        ("", Reason.NO_SCORE, None),
    ],
)
def test_a_judges_score_and_reason_stay_with_the_row(
    reply: str, reason: Reason | None, score: float | None
) -> None:
    plan = plan_of(spec_of("if", checks=[JUDGE]))
    asked, row = ask(plan, SEED, lambda request: reply if request.step == 2 else "You are great.")
    assert [request.step for request in asked] == [0, 2]
    shown = asked[1].messages[0].content
    assert "Is it kind?" in shown
    assert "Say something." in shown
    assert "You are great." in shown
    assert (None if isinstance(row, Record) else row.reason) == reason
    assert [judgement.score for judgement in row.judgements] == [score]
    assert row.usage.completion_tokens == 3 + len(reply.split())


def test_a_judge_is_not_asked_about_a_row_that_fails_anyway() -> None:
    checks = [{"kind": "length", "max_characters": 3}, JUDGE]
    asked, row = ask(plan_of(spec_of("if", checks=checks)), SEED, lambda request: "long answer")
    assert len(asked) == 1
    assert row.judgements == ()


def test_a_judge_that_refuses_the_question_rejects_the_row() -> None:
    from prompts.record import Call

    refused = Call(row="i", text="", finish_reason="error", error="too odd")
    plan = plan_of(spec_of("if", checks=[JUDGE]))
    _, row = ask(plan, SEED, lambda request: refused if request.step == 2 else "fine")
    assert isinstance(row, Rejected)
    assert (row.reason, row.detail) == (Reason.TEACHER_ERROR, "judge: too odd")


JUDGE_CHANGES: dict[str, Any] = {
    "rubric": "Is it long?",
    "threshold": 9,
    "teacher": "critic",
    "lowest": 4,
    "highest": 8,
    "template": "{{ rubric }} {{ completion }} {{ gold }}",
    "max_tokens": 9,
    "temperature": 0.5,
    "structured": False,
}


@pytest.mark.parametrize("field", list(JUDGE_CHANGES))
def test_every_field_of_a_judge_matters(field: str) -> None:
    def outcome_of(**changes: Any) -> Any:
        plan = plan_of(spec_of("if", checks=[{**JUDGE, **changes}]))
        reply = '{"reason": "x", "score": 8.5}'
        return ask(plan, SEED, lambda request: reply if request.step == 2 else "You are great.")

    assert set(JudgeCheck.model_fields) == {"kind", *JUDGE_CHANGES}
    assert outcome_of(**{field: JUDGE_CHANGES[field]}) != outcome_of()


def test_every_kind_of_check_is_looked_for() -> None:
    from typing import get_args

    from prompts.checks.rows import REASONS, ROW_CHECKERS

    kinds = {
        get_args(one.model_fields["kind"].annotation)[0] for one in get_args(get_args(CheckSpec)[0])
    }
    assert set(ROW_CHECKERS) | {"judge"} == set(REASONS) | {"judge"} == kinds
