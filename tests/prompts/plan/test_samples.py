"""Several samples of a row: votes, rejection sampling, hints."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.plan import Request
from prompts.record import Call, Reason, Record, Rejected
from tests.prompts.making import ask, plan_of, requests_of, spec_of

GOLD = {"id": "q", "question": "3 + 4?", "answer": 7}
OPEN = {"id": "q", "question": "3 + 4?"}


def plan(samples: int, **fields: Any) -> Any:
    given = {"samples": samples, "sampling": {"temperature": 1, "seed": 1}, **fields}
    return plan_of(spec_of("cot", **given))


def sampled(texts: list[str], **fields: Any) -> list[Call]:
    """A ledger with these answers as samples 0, 1, ..."""
    return [
        Call(row="q", sample=number, text=text, finish_reason="stop", **fields)
        for number, text in enumerate(texts)
    ]


def says(answer: Any) -> str:
    return f"Because. The answer is {answer}."


def test_all_samples_are_asked_at_once_each_with_its_own_seed() -> None:
    requests = requests_of(plan(8), OPEN)
    assert [(one.step, one.sample) for one in requests] == [(0, n) for n in range(8)]
    assert len({one.sampling.seed for one in requests}) == 8
    assert len({one.messages for one in requests}) == 1


@pytest.mark.parametrize(
    ("answers", "kept", "confidence"),
    [
        (["1", "2", "2"], 1, 2 / 3),
        (["1", "2", "1.0", "2", "1"], 0, 3 / 5),
        (["0.5", "1/2", "3"], 0, 2 / 3),
        (["1,000", "7", "1000"], 0, 2 / 3),
        (["1", "2", "2", "1"], 0, 2 / 4),
        (["2", "1", "1", "2", "3"], 0, 2 / 5),
        (["1", "2", "3"], 0, 1 / 3),
        ([None, "2", None], 1, 1 / 3),
    ],
    ids=lambda value: str(value),
)
def test_votes_go_by_equivalence_and_ties_to_the_earliest(
    answers: list[str | None], kept: int, confidence: float
) -> None:
    texts = [says(answer) if answer else "no idea" for answer in answers]
    row = plan(len(answers)).next(OPEN, sampled(texts))
    assert isinstance(row, Record)
    assert row.completion[0].content == texts[kept]
    assert row.answer == answers[kept]
    assert row.confidence == pytest.approx(confidence)


def test_with_gold_the_first_right_sample_is_kept_even_against_the_vote() -> None:
    texts = [says(8), says(8), "First. The answer is 7.", "Second. The answer is 7."]
    row = plan(4).next(GOLD, sampled(texts, completion_tokens=5))
    assert isinstance(row, Record)
    assert row.completion[0].content == texts[2]
    assert (row.confidence, row.usage.completion_tokens) == (0.5, 20)
    assert json.loads(row.sampling)["seed"] == requests_of(plan(4), GOLD)[2].sampling.seed


def test_min_agreement_rejects_with_both_figures() -> None:
    texts = [says(1), says(2), says(3), says(2)]
    assert isinstance(plan(4, min_agreement=0.5).next(OPEN, sampled(texts)), Record)
    row = plan(4, min_agreement=0.6).next(OPEN, sampled(texts))
    assert isinstance(row, Rejected)
    assert row.reason == Reason.LOW_AGREEMENT
    assert row.detail == "2 of 4 samples agree on '2', asked for 0.6"
    assert row.raw == tuple(texts)
    assert (row.completion[0].content, row.confidence) == (says(2), 0.5)


def test_without_a_good_sample_the_commonest_fault_stands() -> None:
    row = plan(3).next(GOLD, sampled(["no idea", says(8), says(9)]))
    assert isinstance(row, Rejected)
    assert (row.reason, row.detail) == (Reason.WRONG_ANSWER, "answer '8', gold '7'")
    tie = plan(2).next(GOLD, sampled(["no idea", says(8)]))
    assert isinstance(tie, Rejected)
    assert tie.reason == Reason.NO_ANSWER


def test_a_sample_that_was_refused_leaves_the_vote_to_the_others() -> None:
    calls = [
        *sampled([says(7)]),
        Call(row="q", sample=1, text="", finish_reason="error", error="x"),
    ]
    row = plan(2).next(OPEN, calls)
    assert isinstance(row, Record)
    assert row.confidence == 0.5


ANSWERS = st.lists(st.sampled_from(["7", "7.0", "8", "14/2", None]), min_size=4, max_size=4)


@given(ANSWERS, st.permutations(range(4)), st.sets(st.integers(0, 3)))
def test_order_changes_nothing_and_nothing_is_asked_twice(
    answers: list[str | None], order: list[int], answered: set[int]
) -> None:
    one = plan(4, rationalise={})
    calls = sampled([says(answer) if answer else "?" for answer in answers])
    shuffled = [calls[place] for place in order]
    assert one.next(GOLD, calls) == one.next(GOLD, shuffled)
    left = one.next(GOLD, [calls[place] for place in order if place in answered])
    if isinstance(left, tuple) and left[0].step == 0:
        assert {request.sample for request in left} == set(range(4)) - answered
    else:
        assert answered == {0, 1, 2, 3}


def test_a_hint_is_given_where_all_are_wrong_and_does_not_stay_in_the_prompt() -> None:
    one = plan(2, rationalise={"hint": "It is {{ gold }}."})
    asked, row = ask(one, GOLD, lambda request: says(7 if request.step == 1 else 8))
    assert [(request.step, request.sample) for request in asked] == [(0, 0), (0, 1), (1, 0)]
    assert asked[2].messages[-1].content.endswith("\n\nIt is 7.")
    assert isinstance(row, Record)
    assert row.hinted is True
    assert row.prompt == asked[0].messages
    assert (row.answer, row.confidence) == ("7", None)


def test_a_hinted_rationale_that_misses_the_answer_is_not_kept() -> None:
    one = plan(2, rationalise={})
    asked, row = ask(one, GOLD, lambda request: says(8))
    assert len(asked) == 3
    assert isinstance(row, Rejected)
    assert row.reason == Reason.WRONG_ANSWER
    assert len(row.raw) == 3
    assert (row.completion[0].content, row.hinted) == (says(8), True)


@pytest.mark.parametrize(
    ("seed", "texts"),
    [(GOLD, [says(7), says(8)]), (OPEN, [says(7), "?"]), (GOLD, ["I cannot help.", ""])],
    ids=["one is right", "no gold answer", "nobody tried"],
)
def test_no_hint_is_given_elsewhere(seed: dict[str, Any], texts: list[str]) -> None:
    assert not isinstance(plan(2, rationalise={}).next(seed, sampled(texts)), tuple)


def test_a_row_killed_between_its_steps_goes_on_where_it_was() -> None:
    """Whatever part of the ledger is there, what is asked is what is missing."""
    one = plan(
        2,
        rationalise={},
        checks=[{"kind": "judge", "rubric": "Clear?", "threshold": 5, "teacher": "critic"}],
    )

    def teacher(request: Request) -> str:
        if request.teacher == "critic":
            return '{"reason": "clear", "score": 8}'
        return says(7 if request.step == 1 else 8)

    asked, row = ask(one, GOLD, teacher)
    assert [(request.step, request.teacher) for request in asked] == [
        (0, "teacher"),
        (0, "teacher"),
        (1, "teacher"),
        (2, "critic"),
    ]
    assert isinstance(row, Record)
    assert [(j.teacher, j.score, j.reason) for j in row.judgements] == [("critic", 8.0, "clear")]
    calls = [
        Call(row="q", step=r.step, sample=r.sample, text=teacher(r), finish_reason="stop")
        for r in asked
    ]
    for known in range(4):
        step = one.next(GOLD, calls[:known])
        assert isinstance(step, tuple)
        assert step[0] == asked[known]
    assert isinstance(one.next(GOLD, calls), Record)


def test_the_kept_call_is_the_one_whose_words_the_record_holds() -> None:
    one, calls = plan(3), sampled([says(8), says(7), says(7)])
    assert one.kept(GOLD, calls) == calls[1]
    assert one.kept(GOLD, calls[:1]) is None
    assert one.kept(GOLD, sampled([says(8)] * 3)) is None


def test_a_judge_is_asked_itself_also_where_it_writes_a_share_of_the_rows() -> None:
    several = plan(
        1,
        teachers=[{"name": "teacher"}, {"name": "u"}],
        checks=[{"kind": "judge", "rubric": "Clear?", "threshold": 5, "teacher": "teacher"}],
    )
    writers = set()
    for number in range(20):
        seed = {**OPEN, "id": f"q{number}"}
        (first,) = requests_of(several, seed)
        writers.add(first.teacher)
        answer = Call(row=seed["id"], text=says(7), finish_reason="stop", teacher=first.teacher)
        (judged,) = several.next(seed, [answer])
        assert judged.teacher == "teacher"
    assert writers == {"teacher", "u"}
