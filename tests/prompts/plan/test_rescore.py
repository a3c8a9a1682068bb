"""The plan of a rescore build, with a tokenizer that numbers words by their length."""

import json

import pytest
from pydantic import ValidationError

from prompts.plan import (
    SCORES,
    Encoded,
    EncodeError,
    RescorePlan,
    TeacherFacts,
    scored_record,
    scored_seed,
)
from prompts.record import Call, Record, Rejected
from prompts.spec import RescoreBuild, build_spec
from tests.prompts.making import ended


def by_length(record: Record) -> Encoded:
    """A stand-in for a tokenizer. Refuses rows that say nothing but their answer."""
    if len(record.completion[-1].content.split()) < 2:
        raise EncodeError("nothing but an answer")
    given = [len(word) for word in record.prompt[-1].content.split()]
    said = [len(word) for word in record.completion[-1].content.split()]
    return Encoded((*given, *said), len(given))


def spec_of(**fields: object) -> RescoreBuild:
    spec = {"kind": "rescore", "teacher": "teacher", "seeds": "d", "signal": {"top_k": 5}}
    found = build_spec.validate_python(spec | fields)
    assert isinstance(found, RescoreBuild)
    return found


def plan_of(context_tokens: int | None = None) -> RescorePlan:
    facts = TeacherFacts("teacher", context_tokens=context_tokens, encode=by_length)
    return RescorePlan(spec_of(), facts)


RECORD = next(row for row in ended(4) if isinstance(row, Record))
SEED = scored_seed(RECORD)
SCORED = Call(
    row=RECORD.id,
    step=SCORES,
    text="",
    finish_reason="length",
    prompt_tokens=9,
    completion_tokens=1,
)


def test_a_row_is_asked_once_for_the_log_probs_of_its_own_tokens() -> None:
    (request,) = plan_of().next(json.loads(json.dumps(SEED)), [])
    encoded = by_length(RECORD)
    assert request.tokens is not None
    assert (request.tokens.ids, request.tokens.scored_from) == (encoded.ids, encoded.prompt_tokens)
    assert (request.step, request.signal_top_k, request.sampling.max_tokens) == (SCORES, 5, 1)


def test_the_record_stays_what_it_was_and_costs_more() -> None:
    row = plan_of().next(SEED, [SCORED])
    assert isinstance(row, Record)
    assert row.usage.prompt_tokens == RECORD.usage.prompt_tokens + 9
    assert row.model_copy(update={"usage": RECORD.usage}) == RECORD
    assert scored_record(SEED) == RECORD


@pytest.mark.parametrize(("room", "asked"), [(0, False), (1, True)])
def test_a_row_needs_room_for_the_token_that_a_server_writes(room: int, asked: bool) -> None:
    step = plan_of(len(by_length(RECORD).ids) + room).next(SEED, [])
    assert isinstance(step, tuple) == asked
    assert asked or (isinstance(step, Rejected) and step.reason == "prompt_too_long")


def test_rows_that_end_otherwise_keep_what_they_were() -> None:
    terse = RECORD.model_copy(
        update={"completion": (RECORD.completion[-1].model_copy(update={"content": "4"}),)}
    )
    unwritten = plan_of().next(scored_seed(terse), [])
    refusal = SCORED.model_copy(update={"finish_reason": "error", "error": "HTTP 400: no"})
    unasked = plan_of().not_needed(SEED, "budget")
    refused = plan_of().next(SEED, [refusal])
    for row, end, reason in (
        (unwritten, "rejected", "not_scorable"),
        (refused, "rejected", "teacher_error"),
        (unasked, "not_needed", "budget"),
    ):
        assert isinstance(row, Rejected)
        assert (row.end, row.reason, row.prompt) == (end, reason, RECORD.prompt)
        assert scored_record(json.loads(row.seed)).id == RECORD.id


@pytest.mark.parametrize(
    "shaping",
    [
        {"teachers": [{"name": "teacher"}]},
        {"columns": {"a": "b"}},
        {"system": "Be brief."},
        {"turns": "earlier"},
        {"sampling": {"temperature": 1}},
        {"split": {"test": 0.5}},
        {"checks": [{"kind": "length", "min_tokens": 3}]},
    ],
)
def test_fields_that_shape_new_rows_are_refused_by_name(shaping: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=rf"{next(iter(shaping))}: the rows of a rescore"):
        spec_of(**shaping)


def test_it_takes_a_dataset_and_a_signal() -> None:
    with pytest.raises(ValidationError, match="takes the rows of a dataset"):
        spec_of(seeds=[{"a": 1}])
    with pytest.raises(ValidationError, match="an incremental build can't"):
        spec_of(incremental=True)
    with pytest.raises(ValidationError, match=r"signal\n +Field required"):
        build_spec.validate_python({"kind": "rescore", "teacher": "t", "seeds": "d"})
    assert spec_of().deduplicate is False


def test_a_seed_without_a_row_is_named() -> None:
    with pytest.raises(ValueError, match="takes a dataset, no file"):
        scored_record({"id": "x", "question": "?"})
    with pytest.raises(ValueError, match=r"can't be read \(kind:"):
        scored_record({"id": "x", "row": SEED["row"] | {"kind": "poem"}})
