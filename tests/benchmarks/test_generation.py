"""The benchmarks of generation do what they say, at a size at which their figures mean nothing."""

import pytest

from benchmarks import asking, orchestrate, prefix, teacher
from benchmarks.__main__ import BENCHMARKS


def test_whole_jobs_on_a_stub_are_measured_beside_a_bare_loop() -> None:
    found = orchestrate.measure(rows=40, rounds=1)
    assert found["rows"] == 40
    assert found["files"] <= found["fewest_files"]
    assert found["ratio"] == pytest.approx(found["ours"] / found["bare"])
    assert {"orchestrate", "prefix", "teacher"} <= BENCHMARKS.keys()


def test_the_prompts_share_their_beginning_or_do_not() -> None:
    seeds, pool = list(prefix.seeds(5)), list(prefix.pool())
    beginnings: dict[str, set[str]] = {}
    for draw, fixed in enumerate(("per_group", "per_row", "per_group")):
        texts = prefix.prompts_of(prefix.spec_of(["s", "p"], draw, 16, fixed), seeds, pool)
        assert all(1_300 <= len(text.split()) <= 1_700 for text in texts)
        found = {text.rpartition("Input:")[0] for text in texts}
        assert found.isdisjoint(beginnings.get(fixed, ()))
        assert len(found) == (1 if fixed == "per_group" else 5)
        beginnings[fixed] = found


def test_sides_that_did_other_work_are_no_result() -> None:
    heard = asking.Heard(answers=3, completion_tokens=100)
    teacher.require_equal({"requests": 3, "completion_tokens": 101}, heard, 3)
    for other in ({"requests": 2}, {"completion_tokens": 103}):
        with pytest.raises(AssertionError, match="other work"):
            teacher.require_equal({"requests": 3, "completion_tokens": 100} | other, heard, 3)
