"""The novelty benchmark: brute force is the definition, and another verdict is no result."""

import json
from pathlib import Path

import pytest

from benchmarks import novelty
from prompts.likeness import Likest
from prompts.likeness.rouge import RougeIndex


def longest_common(first: list[str], second: list[str]) -> int:
    """By the table of the textbook."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = row[:]
        for place, other in enumerate(second, 1):
            row[place] = (
                before[place - 1] + 1 if one == other else max(before[place], row[place - 1])
            )
    return row[-1]


def test_brute_force_is_the_definition() -> None:
    teacher = novelty.StubTeacher(["a b c d e f", "b a d c", "e e e a"])
    pool = [teacher.write().split() for _ in range(40)]
    for _ in range(40):
        text = teacher.write()
        words = text.split()
        scores = [2.0 * longest_common(words, other) / (len(words) + len(other)) for other in pool]
        best = max(scores)
        expected = Likest(str(scores.index(best)), best) if best >= novelty.LIMIT else None
        assert novelty.brute_force(pool, text) == expected


def test_it_begins_from_the_tasks_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        "".join(json.dumps({"instruction": f"sing {n} songs"}) + "\n" for n in range(9))
    )
    found = novelty.measure(novelty.read_tasks(path), pool=30, questions=10)
    assert (found["tasks"], found["pool"], found["questions"]) == (9, 30, 10)
    assert 0 < found["not_novel"] <= 10
    assert len(novelty.read_tasks(novelty.TASKS)) >= 40


def test_another_verdict_than_brute_forces_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RougeIndex, "likest", lambda index, text, limit: None)
    with pytest.raises(AssertionError, match="disagree"):
        novelty.measure(novelty.read_tasks(novelty.TASKS), pool=60, questions=20)
