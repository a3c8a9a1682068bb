"""Verifiers: equivalence of answers, and what can't be compared."""

import sys
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from prompts.intake import SpecError, check_python
from prompts.plan import make_plan
from prompts.record import Reason, Record, Rejected
from prompts.verify import GoldError, VerifierSpec, VerifyError, gold_text, make_verifier
from prompts.verify.symbolic import same_expression
from tests.prompts.making import TEACHER, ask, plan_of, said, spec_of

SPEC: TypeAdapter[Any] = TypeAdapter(VerifierSpec)


def same_length(answer: str, gold: str) -> bool:
    """A user's verifier."""
    if answer == "boom":
        raise KeyError("boom")
    if answer == "leave":
        sys.exit(3)
    return len(answer) == len(gold)


@pytest.mark.parametrize(
    ("spec", "answer", "gold", "same"),
    [
        ("numeric", "1,000", 1000, True),
        ("numeric", "1/3", "0.3333", False),
        ("choice", "(b)", "B", True),
        ("choice", "B. because", "b", True),
        ("choice", "Bananas", "B", False),
        ("choice", "none", "B", False),
        (
            {"kind": "choice", "choices": ["yes", "no", "not sure"]},
            "Not sure, yes?",
            "not sure",
            True,
        ),
        ({"kind": "choice", "choices": ["yes", "no", "not sure"]}, "not yes", "no", False),
        ("exact", " a  b\n", "a b", True),
        ("exact", "A b", "a b", False),
        ({"kind": "exact", "ignore_case": True}, "A b", "a B", True),
        ("regex", "42 apples", r"\d+ \w+", True),
        ("regex", "x 42", r"\d+", False),
        ({"kind": "regex", "ignore_case": True}, "ABC", "abc", True),
        ("json", '{"b": 1.0, "a": [1, 2]}', '{"a": [1, 2], "b": 1}', True),
        ("json", '```json\n{"a": 1}\n```', {"a": 1}, True),
        ("json", "true", "1", False),
        ("json", "[2, 1]", [1, 2], False),
        ("json", "not json", [1, 2], False),
    ],
)
def test_what_counts_as_the_same(spec: Any, answer: str, gold: Any, same: bool) -> None:
    checked = SPEC.validate_python(spec)
    verifier = make_verifier(checked)
    assert verifier.right is not None
    assert verifier.right(answer, gold_text(checked, gold)) is same


@pytest.mark.parametrize(
    ("spec", "gold", "words"),
    [
        ("numeric", "many", "no number"),
        ("choice", "F", "none of the choices A, B"),
        ("regex", "(", "no regular expression"),
        ("regex", 5, "must be a text"),
        ("json", "{", "no JSON"),
    ],
)
def test_a_gold_answer_that_nothing_equals_is_refused(spec: Any, gold: Any, words: str) -> None:
    with pytest.raises(GoldError, match=words):
        gold_text(SPEC.validate_python(spec), gold)


def test_a_kind_or_a_truth_stands_for_a_verifier() -> None:
    kinds = [SPEC.validate_python(word).kind for word in ("numeric", "none", True, False)]
    assert kinds == ["numeric", "none", "exact", "none"]


def test_every_kind_has_its_verifier() -> None:
    for sort in get_args(get_args(VerifierSpec)[0]):
        given = {"function": f"{__name__}:same_length"} if "function" in sort.model_fields else {}
        assert make_verifier(sort(kind=sort.model_fields["kind"].default, **given), True).same


def test_a_function_runs_only_where_it_is_allowed() -> None:
    spec = spec_of("cot", verify={"kind": "python", "function": f"{__name__}:same_length"})
    with pytest.raises(SpecError, match="verify: python is not allowed"):
        check_python(spec, allowed=False)
    check_python(spec, allowed=True)
    with pytest.raises(VerifyError, match="RETORT_ALLOW_PYTHON_VERIFIERS"):
        plan_of(spec)
    plan = make_plan(spec, None, TEACHER, allow_python=True)
    seed = {"id": "q", "question": "?", "answer": "abc"}
    assert isinstance(plan.next(seed, said(seed, "The answer is xyz.")), Record)
    wrong = plan.next(seed, said(seed, "The answer is xy."))
    assert isinstance(wrong, Rejected)
    assert wrong.reason == Reason.WRONG_ANSWER


def test_a_function_that_raises_ends_the_row_and_says_so() -> None:
    spec = spec_of("cot", verify={"kind": "python", "function": f"{__name__}:same_length"})
    seed = {"id": "q", "question": "?", "answer": "abc"}
    plan = make_plan(spec, None, TEACHER, allow_python=True)
    for said_, error in (("boom", "KeyError"), ("leave", "SystemExit")):
        row = plan.next(seed, said(seed, f"The answer is {said_}."))
        assert isinstance(row, Rejected)
        assert row.reason == Reason.VERIFIER_FAILED
        assert error in row.detail


@pytest.mark.parametrize("path", ["no_such_module:f", f"{__name__}:nothing", f"{__name__}:SPEC"])
def test_a_function_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(VerifyError, match=path):
        make_verifier(SPEC.validate_python({"kind": "python", "function": path}), True)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("x^2 + 2x + 1", "(x+1)^2", True),
        (r"$\sqrt{8}$", r"2\sqrt{2}", True),
        (r"\boxed{12}", "12", True),
        ("x + 1", "x + 2", False),
        ("a" * 3000, "a" * 3000, False),
    ],
)
def test_expressions_are_compared_as_mathematics(answer: str, gold: str, same: bool) -> None:
    assert same_expression(answer, gold, timeout_s=60) is same


@pytest.mark.slow
def test_an_expression_that_hangs_is_killed_and_the_next_one_is_compared() -> None:
    seed = {"id": "q", "question": "?", "answer": "7"}
    plan = plan_of(spec_of("cot", verify={"kind": "math", "timeout_s": 1}))
    row = plan.next(seed, said(seed, r"The answer is $9^{9^{9^{9}}}!$."))
    assert isinstance(row, Rejected)
    assert row.reason == Reason.VERIFIER_FAILED
    assert row.detail == "comparing with '7' took over 1 s"
    assert same_expression("7", "7.0", timeout_s=60) is True


def test_the_answer_pattern_fits_the_verifier() -> None:
    seed = {"id": "q", "question": "?", "answer": "B"}
    row = plan_of(spec_of("cot", verify="choice")).next(seed, said(seed, "So. The answer is (B)."))
    assert isinstance(row, Record)
    assert row.answer == "(B)"
    boxed = {"id": "q", "question": "?", "answer": "x"}
    _, row = ask(
        plan_of(spec_of("cot", verify="exact")), boxed, lambda _: r"Thus \boxed{x}, as was to show."
    )
    assert isinstance(row, Record)
    given = spec_of("cot", verify="exact", answer_pattern="(x)")
    assert given.answer_pattern == "(x)"
