"""Answers to a dataset's prompts: how they are found, compared and counted."""

import pytest

from prompts.record import Kind
from prompts.verify import Verifier, VerifyError, make_verifier
from prompts.verify.spec import NoVerifier, NumericVerifier, PythonVerifier
from tests.trainer.conftest import make_record
from trainer.judging import Checks, find_answer, judge, verdict_of, verifier_or_why

PATTERN = r"answer is (\S+)"
NUMBERS = Checks(NumericVerifier(), PATTERN)


def test_answers_are_found_and_compared_as_the_dataset_says() -> None:
    thought = make_record(0, "q", "so . The answer is 5 .", gold="5.0", answer="5")
    plain = make_record(1, "q", "blue", Kind.ICL, answer="blue")
    numeric, words = make_verifier(NumericVerifier()), make_verifier(NoVerifier())
    assert find_answer(thought, "hm . The answer is 5 .", PATTERN) == "5"
    assert find_answer(thought, "5", PATTERN) is None
    assert find_answer(plain, "blue", PATTERN) == "blue"
    assert verdict_of(thought, "The answer is 5 .", NUMBERS, numeric).right
    assert not verdict_of(thought, "The answer is 6 .", NUMBERS, numeric).right
    assert not verdict_of(thought, "5", NUMBERS, numeric).right
    assert verdict_of(plain, "blue", NUMBERS, words).right
    assert not verdict_of(plain, "red", NUMBERS, words).right


def test_figures_are_those_by_hand() -> None:
    records = [
        make_record(0, "q", "It is so . The answer is 5", gold="5"),
        make_record(1, "q", "The answer is 6", gold="6"),
        make_record(2, "q", "w1 w2", answer=None),
    ]
    texts = ["It is so . The answer is 5", "The answer is 7", "w1 w3"]
    found = judge(records, texts, NUMBERS, make_verifier(NumericVerifier()), 200)
    assert found.exact_match.value == pytest.approx(1 / 3)
    assert found.rouge_l.value == pytest.approx((1 + 3 / 4 + 1 / 2) / 3)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.rows) == (0.5, 2)
    assert found.right == (True, False, False)
    alone = judge(records[2:] * 2, texts[2:] * 2, NUMBERS, make_verifier(NumericVerifier()), 200)
    assert (alone.accuracy, alone.why) == (None, "no row has an answer to compare with")


def test_what_breaks_the_verifier_is_counted_apart() -> None:
    def odd(answer: str, gold: str) -> bool:
        if answer == "5":
            raise VerifyError("no fives")
        return answer == gold

    records = [make_record(n, "q", "w", gold="6") for n in range(2)]
    texts = ["The answer is 5", "The answer is 6"]
    found = judge(records, texts, NUMBERS, Verifier(odd, odd), 200)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.uncompared) == (0.5, 1)
    broken = judge(records, texts[:1] * 2, NUMBERS, Verifier(odd, odd), 200)
    assert broken.accuracy is None
    assert broken.why == "the verifier failed on all 2 answers: no fives"


def test_a_function_of_somebodys_own_is_not_run() -> None:
    verifier, why = verifier_or_why(Checks(PythonVerifier(function="os:getcwd"), PATTERN))
    assert verifier is None
    assert "compared by python: Python verifiers are not allowed here" in why
