import json

import pytest

from prompts.plan import TeacherFacts, content_hash, make_plan, sampling_seed
from prompts.record import Call, Kind, Message, Reason, Record, Rejected, Usage
from tests.prompts.making import labelled, plan_of, questions, requests_of, said, spec_of

SEED = {"id": "q", "question": "What is 3 + 4?", "answer": "3 + 4 = 7\n#### 7", "extra": ["kept"]}


def test_a_row_is_asked_once_and_its_request_is_the_same_in_any_process() -> None:
    (first,) = requests_of(plan_of(spec_of("cot")), SEED)
    assert (first.row, first.step, first.sample) == ("q", 0, 0)
    assert [turn.role for turn in first.messages] == ["user"]
    assert first.messages[0].content.startswith("What is 3 + 4?\n")
    assert (first,) == plan_of(spec_of("cot")).next(dict(SEED), [])
    assert first.teacher == "teacher"


def test_a_right_chain_of_thought_becomes_a_record() -> None:
    plan = plan_of(spec_of("cot"))
    (request,) = requests_of(plan, SEED)
    text = "Three and four make 7. The answer is 7.0."
    record = plan.next(SEED, said(SEED, text, prompt_tokens=11, completion_tokens=9))
    assert isinstance(record, Record)
    assert record.prompt == request.messages
    assert record.completion == (Message(role="assistant", content=text),)
    assert (record.answer, record.gold) == ("7.0", "7")
    assert record.reasoning == "Three and four make 7."
    assert (record.teacher, record.teacher_revision) == ("teacher", "r1")
    assert record.usage == Usage(prompt_tokens=11, completion_tokens=9)
    assert json.loads(record.seed) == SEED
    assert record.content_hash == content_hash(record.prompt, record.completion)


def test_reasoning_that_the_server_cut_off_stands_before_the_rationale() -> None:
    calls = said(SEED, "Seven. The answer is 7.", reasoning="Let me count.")
    record = plan_of(spec_of("cot")).next(SEED, calls)
    assert isinstance(record, Record)
    assert record.reasoning == "Let me count.\nSeven."


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("The answer is 8.", "stop", Reason.WRONG_ANSWER),
        ("No idea.", "stop", Reason.NO_ANSWER),
        ("", "stop", Reason.EMPTY),
        ("I cannot help with that.", "stop", Reason.REFUSAL),
        ("The answer is 7 because", "length", Reason.TRUNCATED),
    ],
)
def test_a_reject_keeps_reason_raw_text_and_cost(
    text: str, finish_reason: str, reason: Reason
) -> None:
    calls = said(SEED, text, finish_reason, completion_tokens=5, reasoning="hm")
    row = plan_of(spec_of("cot")).next(SEED, calls)
    assert isinstance(row, Rejected)
    assert (row.reason, row.finish_reason) == (reason, finish_reason)
    assert row.raw == ((text,) if text else ())
    assert (row.reasoning, row.usage.completion_tokens) == ("hm", 5)
    assert row.detail
    assert row.prompt
    assert json.loads(row.seed) == SEED


def test_a_wrong_answer_is_shown_beside_the_gold_one() -> None:
    row = plan_of(spec_of("cot")).next(SEED, said(SEED, "The answer is 8."))
    assert isinstance(row, Rejected)
    assert (row.answer, row.gold) == ("8", "7")
    assert "'8'" in row.detail
    assert "'7'" in row.detail


def test_a_refused_request_keeps_the_servers_words() -> None:
    calls = said(SEED, "", "error", error="400: no such model")
    row = plan_of(spec_of("cot")).next(SEED, calls)
    assert isinstance(row, Rejected)
    assert (row.reason, row.detail) == (Reason.TEACHER_ERROR, "400: no such model")


def test_a_seed_without_gold_answer_is_not_compared() -> None:
    seed = {"id": "q", "question": "?"}
    row = plan_of(spec_of("cot")).next(seed, said(seed, "The answer is 8."))
    assert isinstance(row, Record)
    assert (row.answer, row.gold) == ("8", None)


@pytest.mark.parametrize(("context", "asked"), [(300, True), (299, False), (None, True)])
def test_a_prompt_that_does_not_fit_is_not_asked(context: int | None, asked: bool) -> None:
    teacher = TeacherFacts(
        "teacher", context_tokens=context, count_tokens=lambda messages, tools: 44
    )
    row = make_plan(spec_of("cot"), None, teacher).next(SEED, [])
    if asked:
        assert isinstance(row, tuple)
        return
    assert isinstance(row, Rejected)
    assert row.reason == Reason.PROMPT_TOO_LONG
    assert "44" in row.detail
    assert row.raw == ()


def test_what_was_paid_for_is_judged_even_if_it_would_not_be_asked_now() -> None:
    teacher = TeacherFacts("teacher", context_tokens=10, count_tokens=lambda messages, tools: 44)
    plan = make_plan(spec_of("cot"), None, teacher)
    assert isinstance(plan.next(SEED, said(SEED, "The answer is 7.")), Record)


def test_in_context_rows_hold_their_demonstrations() -> None:
    seeds = labelled(30)
    plan = plan_of(spec_of("icl", demonstrations=3), seeds)
    row = plan.next(seeds[0], said(seeds[0], " out 0\n"))
    assert isinstance(row, Record)
    assert row.kind is Kind.ICL
    assert len(row.demo_ids) == 3
    for name in row.demo_ids:
        demo = seeds[int(name[1:])]
        assert f"Input: {demo['input']}\nOutput: {demo['output']}\n" in row.prompt[0].content
    assert row.prompt[0].content.endswith("Input: in 0\nOutput:")
    assert (row.answer, row.gold) == ("out 0", "out 0")


def test_too_few_demonstrations_cost_nothing() -> None:
    seeds = labelled(4)
    row = plan_of(spec_of("icl", demonstrations=4), seeds).next(seeds[0], [])
    assert isinstance(row, Rejected)
    assert row.reason == Reason.TOO_FEW_DEMONSTRATIONS
    assert "asks for 4" in row.detail


def test_instructions_are_answered_without_an_answer() -> None:
    seed = {"id": "i", "instruction": "Sort.", "input": "b a"}
    row = plan_of(spec_of("if")).next(seed, said(seed, "a b"))
    assert isinstance(row, Record)
    assert row.prompt[0].content == "Sort.\n\nb a"
    assert row.answer is None


def test_split_does_not_depend_on_id_or_demonstrations() -> None:
    seeds = labelled(60)
    few, many = (plan_of(spec_of("icl", demonstrations=n), seeds) for n in (1, 5))
    for seed in seeds:
        renamed = {**seed, "id": "x"}
        rows = [few.next(seed, said(seed, "a")), many.next(renamed, said(renamed, "a"))]
        assert len({row.split for row in rows if isinstance(row, Record)}) == 1


def test_each_row_has_its_own_sampling_seed() -> None:
    plan = plan_of(spec_of("cot", sampling={"seed": 5, "temperature": 1}))
    requests = [requests_of(plan, seed)[0] for seed in questions(50)]
    sent = [request.sampling.seed for request in requests]
    assert sent == [sampling_seed(5, f"q{i}") for i in range(50)]
    assert len(set(sent)) == 50
    record = plan.next(SEED, said(SEED, "The answer is 7."))
    assert isinstance(record, Record)
    assert json.loads(record.sampling)["seed"] == sampling_seed(5, "q")


def test_every_sample_of_every_step_has_its_own_seed() -> None:
    seeds = {
        sampling_seed(2**31 - 1, f"q{row}", step, sample)
        for row in range(40)
        for step in range(4)
        for sample in range(16)
    }
    assert len(seeds) == 40 * 4 * 16
    assert max(seeds) < 2**31


def test_a_row_not_needed_keeps_what_was_paid_for() -> None:
    calls = [Call(row="q", text="half", finish_reason="stop", completion_tokens=4)]
    row = plan_of(spec_of("cot")).not_needed(SEED, "budget", calls)
    assert (row.end, row.reason, row.raw) == ("not_needed", "budget", ("half",))
    assert row.usage.completion_tokens == 4


def test_a_plan_is_refused_what_does_not_belong_to_it() -> None:
    with pytest.raises(ValueError, match="takes no pool"):
        plan_of(spec_of("cot"), labelled(3))
    with pytest.raises(ValueError, match="needs its pool"):
        plan_of(spec_of("icl"))
    with pytest.raises(ValueError, match="'other'"):
        make_plan(spec_of("cot", teacher="other"), None, TeacherFacts("teacher"))


def test_the_content_hash_tells_turns_and_roles_apart() -> None:
    user, assistant = (Message(role=role, content="a") for role in ("user", "assistant"))
    hashes = {
        content_hash([user], [assistant]),
        content_hash([assistant], [user]),
        content_hash([user, assistant], []),
        content_hash([Message(role="user", content="ab")], [assistant]),
    }
    assert len(hashes) == 4
