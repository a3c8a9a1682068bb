import pytest

from prompts.checks import CHECKS, ROW_CHECKS, Reply, first_fault
from prompts.record import Kind, Reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("half a", "length", answer="1"), Reason.TRUNCATED),
        (Reply("half a", "abort", answer="1"), Reason.TRUNCATED),
        (Reply(" \n", "stop"), Reason.EMPTY),
        (Reply("I’m sorry, but I can't help.", "stop"), Reason.REFUSAL),
        (Reply('"As an AI model ...', "stop"), Reason.REFUSAL),
        (Reply("hm", "content_filter"), Reason.REFUSAL),
        (Reply("hm", "stop"), Reason.NO_ANSWER),
        (Reply("2", "stop", answer="2", gold="3", right=False), Reason.WRONG_ANSWER),
        (Reply("2", "stop", answer="2", gold="2", right=True), None),
        (Reply("2", "stop", answer="2"), None),
        (Reply('"I am sorry," said Ann. The answer is 2', "stop", answer="2"), None),
    ],
)
def test_the_first_fault_of_a_chain_of_thought(reply: Reply, reason: Reason | None) -> None:
    fault = first_fault(Kind.COT, reply)
    assert (fault and fault[0]) == reason
    assert fault is None or fault[1]


def test_only_kinds_with_answers_need_one() -> None:
    reply = Reply("text", "stop")
    assert first_fault(Kind.IF, reply) is None
    assert first_fault(Kind.ICL, reply) is None


def test_every_kind_has_its_checks_and_every_check_is_used() -> None:
    assert set(ROW_CHECKS) == set(Kind)
    assert {reason for reasons in ROW_CHECKS.values() for reason in reasons} == set(CHECKS)
