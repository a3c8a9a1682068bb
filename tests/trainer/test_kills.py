"""Killed at random steps, a run ends with the very weights of an undisturbed one.

`python -m tests.trainer.kills --kills 20` is the same with more kills."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_run_killed_at_random_steps_ends_with_the_same_weights() -> None:
    words = ["--method", "gkd", "--steps", "14", "--kills", "3", "--seed", "3"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.trainer.kills", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["identical"]
    assert len(found["killed_at"]) == 3
    assert max(found["from_checkpoint"]) > 0
