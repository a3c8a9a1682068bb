"""Self-instruct and evol-instruct by the committed recipes on real vLLM, and how it is counted."""

import pytest

from benchmarks import instructions
from benchmarks.instructions import Built, ends, rewritings
from prompts.record import Call, Record
from tests.prompts.making import plan_of, said, spec_of

ORDER = "Sort these words: pig cat dog."


def call(step: int, text: str) -> Call:
    return Call(row="r", step=step, text=text, finish_reason="stop")


def test_rewritings_are_counted_by_what_became_of_them() -> None:
    longer = f"{ORDER} Then reverse them."
    calls = [
        call(1000, "Sort these words: pig cat fox."),
        call(1001, "Equal"),
        call(1002, longer),
        call(1003, "Equal"),
        call(1004, longer),
        call(1005, "Different"),
        call(1006, longer),
        call(0, "dog cat pig"),
    ]
    assert list(rewritings(ORDER, calls)) == [
        *("proposed", "proposed_valid", "equal", "equal_rightly"),
        *("proposed", "proposed_valid", "equal"),
        *("proposed", "proposed_valid", "survived"),
        *("proposed", "proposed_valid", "eliminated_by_text"),
    ]


def test_right_is_what_the_world_answers_to_an_instruction_of_its_own() -> None:
    rows = []
    for name, asked, reply in (
        ("right", ORDER, "cat dog pig"),
        ("wrong", ORDER, "dog cat pig"),
        ("unknown", "Fold these words: pig cat dog.", "cat dog pig"),
    ):
        seed = {"id": name, "instruction": asked}
        row = plan_of(spec_of("if")).next(seed, said(seed, reply))
        assert isinstance(row, Record)
        rows.append(row)
    assert ends(Built(list(rows), {})) == {"accepted": 3, "valid": 2, "right": 1}


@pytest.mark.servers
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_methods_run_on_vllm_and_the_world_finds_most_of_it_right() -> None:
    found = instructions.measure(rows=16)
    written, evolved = found["self-instruct"], found["evol-instruct"]
    assert (written["rounds"], written["proposed"]) == (2, 32)
    assert written["proposed_valid"] >= 24
    assert written["accepted"] >= 3
    assert sum(value for name, value in written.items() if name in END) == 32
    assert (evolved["rounds"], evolved["proposed"]) == (2, 64)
    assert evolved["survived"] >= 40
    assert evolved["accepted"] >= 20
    assert sum(value for name, value in evolved.items() if name in END) == 32
    assert evolved["steps_after"] + evolved["words_after"] > 0.5 + (
        evolved["steps_before"] + evolved["words_before"]
    )
    for line in (written, evolved):
        assert line["right"] >= 0.7 * line["accepted"]


END = {"accepted", "not_novel", "no_instruction", "contaminated", "duplicate", "near_duplicate"}
END |= {"not_evolved", "pattern", "truncated", "empty"}
"""How a row may end here."""
