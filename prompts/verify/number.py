"""Are two answers the same number? Exact arithmetic: no float ever rounds one into the other."""

import re
from fractions import Fraction
from typing import Any

from prompts.verify.errors import GoldError

_PLAIN = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+"
_AMOUNT = rf"(?:{_PLAIN})(?:[eE][+-]?\d{{1,3}})?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*[$€£]?\s*(?P<inner>[+-]?)"
    rf"(?:(?P<whole>\d+)\s+(?=\d+\s*/))?(?P<top>{_AMOUNT})(?:\s*/\s*(?P<bottom>{_AMOUNT}))?\s*%?"
)
_IN_TEXT = re.compile(rf"(?<![\w.])[+-]?\s?[$€£]?{_AMOUNT}(?:\s?/\s?{_AMOUNT})?%?(?!\w)")
_MARK = "####"
LONGEST_NUMBER = 1_000
"""Characters: a teacher that loops writes the same digit thousands of times."""
_MINUS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " "})


def same_number(answer: str, gold: str) -> bool:
    """Whether both texts are one number; False if either isn't a number at all."""
    value = to_number(answer)
    return value is not None and value == to_number(gold)


def to_number(text: str) -> Fraction | None:
    """The number that `text` spells, None if it spells none.

    Understands thousands' commas, a currency sign, a fraction (`1/2`, `1 1/2`), an exponent and a
    closing full stop. A percent sign is a unit, not a division: `50%` is 50, as gold answers have
    it.
    """
    if len(text) > LONGEST_NUMBER:
        return None  # Python turns no longer text into an integer, and no answer is one.
    match = _NUMBER.fullmatch(text.translate(_MINUS).strip().removesuffix("."))
    if match is None or (match["sign"] and match["inner"]):
        return None
    bottom = _fraction(match["bottom"] or "1")
    if not bottom:
        return None
    value = Fraction(match["whole"] or 0) + _fraction(match["top"]) / bottom
    return -value if "-" in (match["sign"], match["inner"]) else value


def gold_answer(value: Any) -> str:
    """The gold number in a seed's field, as text: `... #### 72` gives `72`.

    Raises GoldError if there is no number, or several without a `####` that says which one counts.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise GoldError(f"the gold answer must be text or a number, not {value!r}")
    text = str(value)
    marked = text.rpartition(_MARK)[2].strip()
    if to_number(marked) is not None:
        return marked
    found = [
        match.group().strip().removesuffix(".")
        for match in _IN_TEXT.finditer(marked.translate(_MINUS))
    ]
    if len(found) == 1 and to_number(found[0]) is not None:
        return found[0]
    several = f"{len(found)} numbers" if found else "no number"
    raise GoldError(f"the gold answer {_short(text)} holds {several}; end it with '#### N'")


def _fraction(amount: str) -> Fraction:
    return Fraction(amount.replace(",", "").removesuffix("."))


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"...{text[-77:]}")
