"""The first so many accepted rows, whatever was accepted behind them."""

from typing import Any

import pyarrow as pa
import pytest

from prompts.dataset.first import First, ShortError
from prompts.dataset.schema import CHUNK_SCHEMA


def table(ends: str) -> pa.Table:
    """a: accepted, r: rejected, t: left unasked for the target, b: for the budget."""
    names = {
        "a": ("accepted", None),
        "r": ("rejected", "empty"),
        "t": ("not_needed", "target"),
        "b": ("not_needed", "budget"),
    }
    rows: list[dict[str, Any]] = [
        {
            "id": str(number),
            "end": names[end][0],
            "reason": names[end][1],
            "completion": [{"role": "assistant", "content": f"said {number}"}],
        }
        for number, end in enumerate(ends)
    ]
    return pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)


def test_what_is_beyond_is_not_needed_and_keeps_what_was_paid_for() -> None:
    first = First(3)
    assert first.take(table("ara"))["end"].to_pylist() == ["accepted", "rejected", "accepted"]
    rest = first.take(table("aatr"))
    ends = ["accepted", "not_needed", "not_needed", "rejected"]
    assert rest["end"].to_pylist() == ends
    assert rest["reason"].to_pylist() == [None, "target", "target", "empty"]
    assert rest["raw"].to_pylist()[1] == ["said 1"]


def test_an_unasked_row_before_enough_says_how_many_there_are() -> None:
    with pytest.raises(ShortError) as raised:
        First(3).take(table("aata"))
    assert raised.value.accepted == 2


def test_rows_that_the_budget_left_are_no_reason_to_ask_on() -> None:
    assert First(3).take(table("aab"))["end"].to_pylist()[2] == "not_needed"


def test_without_a_target_all_stand() -> None:
    rows = table("aara")
    assert First(None).take(rows) is rows
