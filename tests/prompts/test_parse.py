import pytest

from prompts.parse import Parsed, Spoken, check_answer_pattern, parse_answer, split_thinking
from prompts.record import Record, Rejected
from prompts.spec import CotBuild
from tests.prompts.making import plan_of, said, spec_of

DEFAULT = CotBuild.model_fields["answer_pattern"].default


@pytest.mark.parametrize(
    ("text", "answer", "rationale"),
    [
        ("He has 3. She has 4. The answer is 7.", "7", "He has 3. She has 4."),
        ("3 + 4 = 7\n#### 7", "7", "3 + 4 = 7"),
        ("The answer is 5. No: wait. The answer is 6.", "6", "The answer is 5. No: wait."),
        ("The answer is 7", "7", ""),
        ("It costs 2.50 each. So the answer is $1,234.50.", "$1,234.50", "It costs 2.50 each."),
        ("THE ANSWER IS: -3", "-3", ""),
        ("so the answer is -$3", "-$3", ""),
        ("the answer is 1/2.", "1/2", ""),
        ("the answer is .5", ".5", ""),
        ("I don't know. ", None, "I don't know."),
        ("", None, ""),
    ],
)
def test_answer_and_rationale(text: str, answer: str | None, rationale: str) -> None:
    assert parse_answer(text, DEFAULT) == Parsed(answer, rationale)


def test_a_group_that_matched_nothing_is_no_answer() -> None:
    assert parse_answer("Answer:", r"Answer:(\d+)?") == Parsed(None, "Answer:")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "no regular expression"), (r"\d+", "it has 0"), (r"(\d)(\d)", "it has 2")],
)
def test_a_bad_pattern_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_answer_pattern(pattern)


@pytest.mark.parametrize(
    ("text", "reasoning", "said", "thought"),
    [
        ("It is 7.", None, "It is 7.", None),
        ("<think>\n3+4\n</think>\n\nIt is 7.", None, "It is 7.", "3+4"),
        ("3+4</think>It is 7.", None, "It is 7.", "3+4"),
        ("<think>3+4, so the answer is", None, "", "3+4, so the answer is"),
        ("<think>a</think><think>b</think>c", None, "c", "a\nb"),
        ("<think></think>c", None, "c", None),
        ("It is 7.", " 3+4 ", "It is 7.", "3+4"),
        ("<think>b</think>c", "a", "c", "a\nb"),
        (
            "Write <think> and </think> around it.",
            None,
            "Write <think> and </think> around it.",
            None,
        ),
        ("  It is 7.\n", None, "  It is 7.\n", None),
    ],
)
def test_thinking_is_cut_off(
    text: str, reasoning: str | None, said: str, thought: str | None
) -> None:
    assert split_thinking(text, reasoning) == Spoken(said, thought)


def test_an_answer_is_not_read_from_the_thinking() -> None:
    seed = {"id": "q", "question": "?", "answer": 7}
    plan = plan_of(spec_of("cot"))
    row = plan.next(seed, said(seed, "<think>The answer is 7? No.</think>The answer is 8."))
    assert isinstance(row, Rejected)
    assert row.answer == "8"
    record = plan.next(seed, said(seed, "<think>3+4</think>So. The answer is 7."))
    assert isinstance(record, Record)
    assert record.completion[0].content == "So. The answer is 7."
    assert record.reasoning == "3+4\nSo."


def test_a_model_that_stopped_while_it_thought_said_nothing() -> None:
    seed = {"id": "i", "instruction": "Go."}
    row = plan_of(spec_of("if")).next(seed, said(seed, "<think>Hm, where to"))
    assert isinstance(row, Rejected)
    assert (row.reason, row.reasoning) == ("empty", "Hm, where to")


def test_a_pattern_that_explodes_finds_no_answer() -> None:
    text = "a" * 5_000 + " The answer is 7."
    assert parse_answer(text, "^((?:(?:[a-z])+.)+[A-Z](?:[a-z])+)$").answer is None
