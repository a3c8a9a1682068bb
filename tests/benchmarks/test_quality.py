"""The quality study's figures, and that nothing is done twice. The study itself:
`python -m benchmarks.quality --smoke --out DIR`."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from benchmarks import quality
from benchmarks.quality import (
    AGAIN,
    FIRST,
    FULL,
    METHODS,
    OTHERS,
    SMOKE,
    one_run,
    runs_of,
    settle,
    spec_of,
)
from benchmarks.quality_data import sureness
from benchmarks.quality_table import Run, beside, mean_of, plot, summaries, table
from trainer.spec import TrainSpec

RUNS = [
    Run("sequence_level", 0, 0.4, 10.0, 300.0, 50, 9_000),
    Run("sequence_level", 1, 0.6, 14.0, 280.0, 50, 11_000),
    Run("gkd", 0, 0.8, 90.0, 400.0, 20, 5_000),
]


def test_the_share_of_the_gap_is_over_base_and_teacher() -> None:
    rows = summaries(RUNS, base=0.2, teacher=0.9)
    assert mean_of(rows, "gkd") == pytest.approx(0.6 / 0.7)
    first = rows[0].figures
    assert first["gap"] == pytest.approx((0.2 + 0.4) / 2 / 0.7)
    assert first["spread"] == pytest.approx(0.2 / 0.7 / 2**0.5)
    assert (first["seconds"], first["peak_mib"], first["seeds"]) == (12.0, 300.0, 2)
    assert mean_of(summaries(RUNS, base=0.9, teacher=0.9), "gkd") == 0.0


def test_table_and_drawing_hold_every_method(tmp_path: Path) -> None:
    rows = summaries(RUNS, base=0.2, teacher=0.9)
    told = table(rows, 0.2, 0.9)
    assert "Base 20.0%, teacher 90.0%" in told
    assert "| `sequence_level` | 42.9% ± 20.2% (2) | 50.0% | 12 s | 10,000 | 300 MiB |" in told
    for name in ("a.svg", "b.svg"):
        plot(rows, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert b"sequence_level" in drawn
    assert b"gkd" in drawn


def test_methods_are_compared_seed_by_seed() -> None:
    runs = [Run("gkd", seed, 0.5 + seed / 10, 1.0, 1.0, 1) for seed in (0, 1)]
    runs += [Run("minillm", seed, 0.54 + seed / 5, 1.0, 1.0, 1) for seed in (1, 0)]
    runs.append(Run("uld", 0, 0.9, 1.0, 1.0, 1))
    told = beside(runs, "gkd", base=0.0, teacher=0.5)
    # 8 and 28 points more: their mean, and their standard deviation over the root of two.
    assert told.splitlines()[2:] == ["| `minillm` | +18.0% ± 10.0% |"]
    assert beside(runs[1:], "gkd", 0.0, 0.5) == ""


@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_every_spec_is_one_that_the_trainer_takes(method: str, tmp_path: Path) -> None:
    made = spec_of(tmp_path, tmp_path / "dataset", method, 3, SMOKE, 2)
    spec = TypeAdapter[TrainSpec](TrainSpec).validate_python(made)
    assert (spec.optimization.seed, spec.optimization.threads) == (3, 2)
    twice = spec_of(tmp_path, tmp_path / "dataset", method, 3, replace(SMOKE, rate_scale=2.0), 2)
    assert twice["optimization"]["learning_rate"] == 2 * spec.optimization.learning_rate
    again = method in AGAIN
    assert (f"{FIRST}-3" in spec.student) is again
    assert spec.optimization.max_steps == (SMOKE.on_policy_steps if again else None)


def test_a_finished_run_is_read_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gkd-0.json").write_text(json.dumps(vars(RUNS[2])))
    monkeypatch.setattr(quality, "train", lambda *given: pytest.fail("it trained"))
    assert one_run(tmp_path, tmp_path, "gkd", 0, SMOKE, 1) == RUNS[2]


def test_a_choice_of_methods_brings_whom_they_start_from() -> None:
    assert runs_of(["uld", "forward_kl"], 2) == [("forward_kl", 0), ("forward_kl", 1), ("uld", 0)]
    assert runs_of(["gkd"], 1) == [(FIRST, 0), ("gkd", 0)]
    everything = runs_of([*METHODS, *OTHERS], 3)
    assert len(everything) == len(set(everything)) == 3 * len(METHODS) + len(OTHERS)
    assert everything[:3] == [(FIRST, 0), (FIRST, 1), (FIRST, 2)]


def test_a_folder_holds_one_study(tmp_path: Path) -> None:
    """More seeds and other methods may come; another size, rate or demo is another table."""
    threads = settle(tmp_path, SMOKE)
    kept = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**kept, "threads": threads + 5}))
    assert settle(tmp_path, replace(SMOKE, seeds=9)) == threads + 5
    with pytest.raises(SystemExit, match=r"other .*epochs.*: name another folder"):
        settle(tmp_path, FULL)
    with pytest.raises(SystemExit, match="other rate_scale"):
        settle(tmp_path, replace(SMOKE, rate_scale=0.5))
    (tmp_path / "study.json").write_text(json.dumps({**kept, "models": ["others"]}))
    with pytest.raises(SystemExit, match="other models"):
        settle(tmp_path, SMOKE)


def test_what_there_is_is_told_after_each_run(tmp_path: Path) -> None:
    quality.tell(tmp_path, RUNS[:1], 0.2, 0.9, SMOKE)
    assert "sequence_level" in (tmp_path / "table.md").read_text()
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 1
    assert (tmp_path / "gap.svg").is_file()


def test_sureness_is_told_of_the_tokens_that_came() -> None:
    p = torch.tensor([[0.995, 0.005], [0.5, 0.5]], dtype=torch.float64)
    found = sureness(p.log(), torch.tensor([0, 1]))
    assert (found["tokens"], found["sure"]) == (2.0, 1.0)
    assert found["nll"] == pytest.approx(-math.log(0.995) - math.log(0.5))
    own = -(0.995 * math.log(0.995) + 0.005 * math.log(0.005))
    assert found["entropy"] == pytest.approx(own + math.log(2))
