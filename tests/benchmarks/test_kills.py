"""Kills come where they are meant to, and what they leave is told; a few of them for real.
All of them: `python -m benchmarks.kills`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kills import Pace, Size, compare, delay_of, kills_of, table

SIZE = Size()


def test_kills_are_seeded_and_come_in_every_part_of_a_run() -> None:
    kills = kills_of(SIZE)
    assert kills == kills_of(SIZE)
    assert kills != kills_of(replace(SIZE, seed=1))
    steps = [kill.step for kill in kills]
    assert len(steps) == 20
    assert steps == sorted(steps)
    each = SIZE.steps // SIZE.kills
    assert all(each * part < step <= each * (part + 1) for part, step in enumerate(steps))
    assert sum(step % SIZE.checkpoint_steps == 0 for step in steps) >= 10
    assert any(step % SIZE.checkpoint_steps for step in steps)
    assert steps[-1] == SIZE.steps


def test_a_kill_falls_within_what_follows_its_step() -> None:
    pace = Pace(step_s=10.0, save_s=1.0, end_s=100.0, whole_s=1000.0)
    for kill in kills_of(SIZE):
        delay = delay_of(kill, pace, SIZE)
        if kill.step == SIZE.steps:
            assert delay == kill.share * 100
        else:
            assert delay == kill.share * (10 if kill.step % SIZE.checkpoint_steps else 1)


def test_the_table_tells_what_differs() -> None:
    one = {
        "method": "gkd",
        "steps": 9,
        "kills": 2,
        "after_step": [2, 6],
        "half_written": 1,
        "whole_s": 20.0,
        "cut_s": 60.4,
        "identical": True,
    }
    told = table([one, {**one, "method": "minillm", "identical": False}])
    assert "| `gkd` | 2 | 2, 6 of 9 | 1 | 20 s | 60 s | identical |" in told
    assert "| `minillm` | 2 | 2, 6 of 9 | 1 | 20 s | 60 s | DIFFERENT |" in told


@pytest.mark.slow
def test_a_killed_training_of_the_demo_ends_with_the_same_weights(tmp_path: Path) -> None:
    size = Size(kills=3, steps=9, problems=24, batch_size=2)
    found = compare(tmp_path, "gkd", size)
    assert found["identical"]
    assert found["kills"] >= 2
    kept = json.loads((tmp_path / "gkd-kills.json").read_text())
    assert max(one["begun"] for one in kept) >= 3
    assert all(one["step"] >= one["begun"] for one in kept)
    again = compare(tmp_path, "gkd", size)
    assert (again["sha256"], again["after_step"]) == (found["sha256"], found["after_step"])
