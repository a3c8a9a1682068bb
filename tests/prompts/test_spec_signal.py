import pytest
from pydantic import ValidationError

from prompts.plan import REFUSED
from prompts.record import Call, CallSignal, Record
from prompts.signal import signals_of
from prompts.spec import Signal, SignalRefusedError, check_signal
from tests.prompts.making import plan_of, questions, requests_of, spec_of


def test_the_signal_is_asked_for_with_every_request() -> None:
    seed = questions(1)[0]
    assert requests_of(plan_of(spec_of("cot")), seed)[0].signal_top_k is None
    plan = plan_of(spec_of("cot", signal={"top_k": 5}))
    assert requests_of(plan, seed)[0].signal_top_k == 5


@pytest.mark.parametrize("given", [{}, {"top_k": 4, "sampled": 4}])
def test_it_is_one_of_the_two(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="give one of top_k and sampled"):
        Signal.model_validate(given)


def test_sampled_needs_the_teacher_in_process() -> None:
    with pytest.raises(SignalRefusedError, match="sampled needs the teacher in process"):
        check_signal(Signal(sampled=12), "t", None, {"t": "a"})


def test_k_above_the_teachers_limit_is_refused() -> None:
    check_signal(Signal(top_k=20), "t", 20, {"t": None})
    with pytest.raises(SignalRefusedError, match="top_k is 21, teacher 't' gives 20"):
        check_signal(Signal(top_k=21), "t", 20, {"t": None})


@pytest.mark.parametrize("other", ["b", None])
def test_teachers_of_different_tokenizers_share_no_signal(other: str | None) -> None:
    check_signal(Signal(top_k=2), "t", 20, {"t": "a", "u": "a"})
    with pytest.raises(SignalRefusedError, match="one tokenizer"):
        check_signal(Signal(top_k=2), "t", 20, {"t": "a", "u": other})


def test_the_signal_of_a_row_is_that_of_the_call_that_became_its_completion() -> None:
    seed = questions(1)[0]
    plan = plan_of(spec_of("cot", signal={"top_k": 2}))
    text = "One more. The answer is 1."
    other = Call(row=seed["id"], sample=1, text="no", finish_reason="stop", signal=signal(7))
    chosen = Call(row=seed["id"], text=text, finish_reason="stop", signal=signal(9))
    record = plan.next(seed, [other, chosen])
    assert isinstance(record, Record)
    ((row_id, row),) = signals_of([record], {seed["id"]: [other, chosen]})
    assert (row_id, row.token_ids.tolist()) == (seed["id"], [9])
    failed = plan.next(seed, [chosen.model_copy(update={"finish_reason": REFUSED})])
    assert not isinstance(failed, Record | tuple)
    assert list(signals_of([failed], {seed["id"]: [chosen]})) == []


def signal(token: int) -> CallSignal:
    return CallSignal(
        token_ids=(token,), top_ids=((token, 1),), top_logprobs=((-0.1, -3.0),), logprobs=(-0.1,)
    )
