"""What a row keeps when it changes sides."""

from prompts.record import Call, Judgement, Message, Reason, Record, Rejected, Usage, as_rejected


def test_a_rejected_row_keeps_all_that_it_held() -> None:
    row = Record(
        id="r1",
        kind="cot",
        prompt=(Message(role="user", content="1+1?"),),
        completion=(Message(role="assistant", content="It is 2."),),
        answer="2",
        gold="2",
        reasoning="one and one",
        demo_ids=("d1",),
        split="train",
        teacher="t",
        finish_reason="stop",
        usage=Usage(prompt_tokens=3, completion_tokens=4),
        judgements=(Judgement(teacher="j", score=7.0, reason="good"),),
        content_hash="h",
        seed="{}",
    )
    rejected = as_rejected(row, Reason.BY_HAND, "dull")
    assert (rejected.reason, rejected.detail, rejected.raw) == ("by_hand", "dull", ("It is 2.",))
    shared = Record.model_fields.keys() & Rejected.model_fields.keys()
    assert {"judgements", "completion", "tools", "sampling"} <= shared
    assert rejected.rationale == row.reasoning
    for name in shared:
        assert getattr(rejected, name) == getattr(row, name), name


def test_a_row_of_before_answers_were_kept_apart_is_read() -> None:
    old = {"id": "r1", "kind": "cot", "end": "rejected", "reason": "refusal", "teacher": "t"}
    # A file without the columns, and a chunk in which only accepted rows had them.
    for given in ({}, {"completion": None, "flags": None, "sampling": None}):
        row = Rejected.model_validate(old | given | {"seed": "{}"})
        assert (row.completion, row.flags, row.sampling) == ((), (), "{}")


def test_half_a_character_that_a_server_sent_is_replaced() -> None:
    call = Call(row="r", text="a \ud83d b 😀", reasoning="\udc00", finish_reason="stop")
    assert (call.text, call.reasoning) == ("a \ufffd b 😀", "\ufffd")
    pair = Call(row="r", text="\ud83d\ude00", finish_reason="stop")
    assert pair.text == "😀"
    again = Call.model_validate_json('{"row": "r", "text": "é", "finish_reason": "stop"}')
    assert again.text == "é"
