"""A part's log while it runs."""

import os
import sys
from pathlib import Path

import pytest

from tests.workers.conftest import wait_for
from workers import part
from workers.part import Part, PartPlan

CHATTER = """
import sys, time
for number in range(10_000):
    print(number, flush=True)
    sys.stdin.read(0)
    time.sleep(0.002)
"""


def test_a_log_stays_short_while_its_part_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "LOG_LIMIT_BYTES", 1000)
    log, older = tmp_path / "p.log", tmp_path / "p.log.1"
    command = (sys.executable, "-c", CHATTER)
    plan = PartPlan("p", command, log, dict(os.environ), lambda: True, "")
    running = Part(plan)
    running.start()
    try:
        for _ in range(2):
            wait_for(lambda: log.stat().st_size > 1000, 30)
            last = int(running.last_lines(2)[0])
            running.keep_log_short()
            assert log.stat().st_size < 1000
            assert str(last) in older.read_text().splitlines()
        wait_for(lambda: int((running.last_lines(2) or ["0"])[0]) > last, 30)
        assert b"\0" not in log.read_bytes()
    finally:
        running.ask_to_stop()
        assert running.wait(30)


def test_a_short_log_stays_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "p.log"
    running = Part(PartPlan("p", ("true",), log, {}, lambda: True, ""))
    running.keep_log_short()
    log.write_text("1\n")
    running.keep_log_short()
    assert [log.read_text(), log.with_suffix(".log.1").exists()] == ["1\n", False]
