"""A sweep over studies that are told here, not trained."""

import json
from pathlib import Path

import pytest

from benchmarks.quality_sweep import common, draw, read, table
from trainer.measurement import Accuracy, Measurement


def folder(place: Path, scale: float, accuracies: dict[tuple[str, int], float]) -> Path:
    place.mkdir()
    for name, right in {"base": 20, "teacher": 100}.items():
        made = Measurement(
            model=name,
            skills={"cot": Accuracy(correct=right, n=100, low=0, high=1)},
            parameters=1,
            weight_bytes=1,
            generated_tokens=1,
            seconds=1,
            tokens_per_s=1,
        )
        (place / f"{name}.json").write_text(made.model_dump_json())
    runs = []
    for (method, seed), accuracy in accuracies.items():
        runs.append(
            {"method": method, "seed": seed, "accuracy": accuracy}
            | {"seconds": 1.0, "peak_mib": 1.0, "steps": 2, "tokens": 3}
        )
        model = place / f"{method}-{seed}/model"
        model.mkdir(parents=True)
        (model / "retort.json").write_text(
            json.dumps({"validation": [[1, 0.5], [2, 0.25 / scale]]})
        )
    (place / "results.json").write_text(json.dumps({"size": {"rate_scale": scale}, "runs": runs}))
    return place


def test_only_seeds_that_all_have_are_compared(tmp_path: Path) -> None:
    half = folder(tmp_path / "half", 0.5, {("gkd", 0): 0.6, ("gkd", 1): 0.2, ("minillm", 0): 1.0})
    once = folder(tmp_path / "once", 1.0, {("gkd", 0): 0.4})
    folders = [read(half), read(once)]
    assert common(folders) == {"gkd": {0}}
    assert table(folders).splitlines() == [
        "| method (seeds) | rate x 0.5 | rate x 1 |",
        "|---|--:|--:|",
        "| `gkd` (1) | **50.0%** | 25.0% |",
    ]
    assert folders[0].curves["gkd", 0] == [(1, 0.5), (2, 0.5)]


def test_the_drawing_has_a_line_for_each_rate(tmp_path: Path) -> None:
    folders = [
        read(folder(tmp_path / str(scale), scale, {("gkd", 0): 0.6, ("minillm", 0): 0.7}))
        for scale in (0.5, 1.0)
    ]
    for name in ("a.svg", "b.svg"):
        draw(folders, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert all(drawn.count(word) >= 2 for word in ("gkd", "minillm", "x 0.5", "x 1"))


def test_a_folder_without_results_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        read(tmp_path)
