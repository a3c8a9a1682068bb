from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prompts.verify import GoldError, gold_answer, same_number, to_number

DECIMALS = st.decimals(-(10**9), 10**9, allow_nan=False, places=3)


@given(DECIMALS)
def test_every_spelling_of_a_number_is_that_number(value: Decimal) -> None:
    spellings = [f"{value}", f"{value:,}", f"${value:,}", f"{value}%", f"{value}0", f" {value}. "]
    spellings += [f"{value}/1", f"{value * 2}/2", f"{value:,}".replace("-", "−")]
    assert {to_number(text) for text in spellings} == {Fraction(value)}


@given(DECIMALS, DECIMALS)
def test_equal_texts_are_equal_numbers_only(first: Decimal, second: Decimal) -> None:
    assert same_number(f"{first:,}", f"${second}") == (first == second)


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_exact(top: int, bottom: int) -> None:
    assert to_number(f"{top}/{bottom}") == Fraction(top, bottom)
    assume(top > 0)
    assert to_number(f"2 {top}/{bottom}") == 2 + Fraction(top, bottom)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("1,234.50", "1234.5", True),
        ("$72", "72.00", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("1/2", "0.5", True),
        ("1 1/2", "1.5", True),
        ("-$3", "$-3", True),
        ("1e3", "1,000", True),
        ("0.1", "0.10000000000000000001", False),
        ("1,00,000", "100000", True),
        ("1/0", "1/0", False),
        ("1,2", "12", False),
        ("--3", "3", False),
        ("-$-3", "3", False),
        ("", "", False),
        ("seven", "seven", False),
        ("1e999999999", "1", False),
    ],
)
def test_equality(first: str, second: str, same: bool) -> None:
    assert same_number(first, second) is same


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("48/2 = 24\n48+24 = 72\n#### 72", "72"),
        ("#### 1,234", "1,234"),
        ("#### $5 dollars", "$5"),
        ("72", "72"),
        ("72 apples", "72"),
        ("it is −3.", "-3"),
        ("1/2", "1/2"),
        (72, "72"),
        (0.1, "0.1"),
        (1e-07, "1e-07"),
    ],
)
def test_the_gold_answer(gold: object, answer: str) -> None:
    assert gold_answer(gold) == answer
    assert to_number(answer) is not None


@pytest.mark.parametrize("gold", ["", "unknown", "####", "2 of 3 apples", "10-20", True, [1], "B2"])
def test_a_gold_answer_without_one_number_is_refused(gold: object) -> None:
    with pytest.raises(GoldError):
        gold_answer(gold)


@pytest.mark.parametrize("answer", ["9" * 5_000, "1/" + "3" * 5_000, "0." + "1" * 5_000])
def test_an_answer_without_end_is_no_number(answer: str) -> None:
    assert not same_number(answer, "9")
    with pytest.raises(GoldError):
        gold_answer(answer)
