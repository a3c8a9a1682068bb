import pytest

from prompts.parse import Parsed, check_answer_pattern, parse_answer
from prompts.spec import CotBuild

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
