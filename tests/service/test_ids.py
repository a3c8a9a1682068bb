"""Ids sort by the time of their making."""

import time
from itertools import pairwise

import pytest

from service.ids import make_id


def test_ids_of_one_process_ascend_also_within_a_moment() -> None:
    made = [make_id("job") for _ in range(5_000)]
    assert all(one < other for one, other in pairwise(made))
    assert {len(one) for one in made} == {len("job-") + 12}


def test_a_clock_that_is_put_back_makes_no_earlier_id(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_id("job")
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr("service.ids.time.time", lambda: an_hour_ago)
    assert make_id("job") > first
