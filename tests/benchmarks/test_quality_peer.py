"""What is asked of trl, and what becomes of the figures. The comparison itself needs trl:
`PYTHONPATH=.peers python -m benchmarks.quality_peer --smoke --out DIR --study DIR`."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from benchmarks import quality_peer
from benchmarks.peer import NoPeerError
from benchmarks.quality import SMOKE, spec_of
from benchmarks.quality_peer import Ends, Point, figures, result, table
from benchmarks.trl_gkd import settings
from trainer.spec import OnPolicy, TrainSpec

ENDS = Ends(base=0.2, teacher=0.7, start=0.4)
POINTS = [
    Point("ours", 0, 150, 90.0, 0.6, True),
    Point("steps", 0, 50, 60.0, 0.5, False),
    Point("steps", 0, 150, 180.0, 0.58, True),
    Point("time", 0, 75, 100.0, 0.55, True),
    Point("longest", 0, 250, 300.0, 0.61, False),
    Point("longest", 0, 300, 400.0, 0.65, True),
    Point("ours", 0, 150, 110.0, 0.6, True),
]


def test_the_time_that_trl_needs_is_that_of_its_first_student_as_good() -> None:
    row = figures(POINTS, 0, ENDS)
    assert row["ours_s"] == 100
    assert row["ours_gap"] == pytest.approx(0.8)
    assert row["start_gap"] == pytest.approx(0.4)
    assert row["equal_time_gap"] == pytest.approx(0.7)
    assert (row["equal_steps_gap"], row["equal_steps_s"]) == (pytest.approx(0.76), 180)
    assert (row["reached"], row["needed_s"]) == (1, 300)
    told = result(POINTS, [ENDS])
    assert (told.ratio, told.met) == (3, False)


def test_where_trl_never_gets_there_its_longest_run_bounds_the_ratio() -> None:
    better = [replace(one, accuracy=0.7) if one.run == "ours" else one for one in POINTS]
    row = figures(better, 0, ENDS)
    assert (row["reached"], row["needed_s"]) == (0, 400)
    assert result(better, [ENDS]).met


def test_the_table_holds_every_student() -> None:
    told = table(POINTS, [ENDS])
    assert "| ours | 0 | 150 | 90.0 s | 60.0% | 80.0% |" in told
    assert "| trl, longest, on the way | 0 | 250 | 300.0 s | 61.0% | 82.0% |" in told
    assert "| the start | 0 | 0 | | 40.0% | 40.0% |" in told


def test_trl_is_asked_for_what_our_spec_says(tmp_path: Path) -> None:
    made = spec_of(tmp_path, tmp_path, "gkd", 3, SMOKE, 2)
    spec = TypeAdapter[TrainSpec](TrainSpec).validate_python(made)
    assert isinstance(spec, OnPolicy)
    asked = settings(spec, tmp_path, 40)
    wanted = {"lmbda": 0.5, "beta": 0.5, "temperature": 1.0, "max_new_tokens": 96, "seed": 3}
    assert {name: asked[name] for name in wanted} == wanted
    assert asked["per_device_train_batch_size"] == spec.optimization.batch_size
    assert asked["learning_rate"] == spec.optimization.learning_rate
    assert (asked["max_steps"], asked["warmup_steps"]) == (40, 4)
    tempered = spec.model_copy(update={"kd_temperature": 2.0})
    with pytest.raises(ValueError, match="temperature"):
        settings(tempered, tmp_path, 40)


def test_without_trl_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trl" else find(name)
    )
    with pytest.raises(NoPeerError, match=r"pip install --no-deps --target .peers trl==1\.16\.0"):
        quality_peer.run(True)
