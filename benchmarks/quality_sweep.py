"""The quality study at several learning rates: what each closes of the gap, and how it got there.

    python -m benchmarks.quality_sweep .quality-half .quality .quality-twice [--drawing a.svg]

Each folder is one of `python -m benchmarks.quality --rate-scale`, with its trainings. Prints a
table of the seeds that all folders have of a method; draws the share of the gap against the rate,
and each method's validation loss over its steps, in the method's own unit.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.quality_table import Run, gap
from trainer.measurement import Measurement

Curve = list[tuple[int, float]]
"""Validation loss after so many steps."""


@dataclass(frozen=True)
class Folder:
    """A study at one rate."""

    scale: float
    """Of every learning rate."""
    base: float
    teacher: float
    """Accuracies, 0..1."""
    runs: dict[tuple[str, int], Run]
    """By method and seed."""
    curves: dict[tuple[str, int], Curve]

    def gaps(self, method: str, seeds: set[int]) -> list[float]:
        """A share of the gap for each seed."""
        return [
            gap(self.runs[method, seed].accuracy, self.base, self.teacher) for seed in sorted(seeds)
        ]


def read(folder: Path) -> Folder:
    """Raises FileNotFoundError where no study has told anything yet."""
    told = json.loads((folder / "results.json").read_text("utf-8"))
    runs = [Run(**one) for one in told["runs"]]
    return Folder(
        told["size"]["rate_scale"],
        _share(folder / "base.json"),
        _share(folder / "teacher.json"),
        {(run.method, run.seed): run for run in runs},
        {(run.method, run.seed): _curve(folder / f"{run.method}-{run.seed}") for run in runs},
    )


def _share(measurement: Path) -> float:
    (skill,) = Measurement.model_validate_json(measurement.read_text("utf-8")).skills.values()
    return skill.share


def _curve(training: Path) -> Curve:
    card = training / "model/retort.json"
    if not card.is_file():
        return []
    return [(step, loss) for step, loss in json.loads(card.read_text("utf-8"))["validation"]]


def common(folders: list[Folder]) -> dict[str, set[int]]:
    """Seeds that every folder has, for each method that has any."""
    pairs = set.intersection(*(set(folder.runs) for folder in folders))
    methods = dict.fromkeys(method for method, _ in folders[0].runs)
    return {
        method: seeds
        for method in methods
        if (seeds := {seed for named, seed in pairs if named == method})
    }


def table(folders: list[Folder]) -> str:
    """Markdown: the mean share of the gap, a column for each rate."""
    seeds = common(folders)
    head = " | ".join(f"rate x {folder.scale:g}" for folder in folders)
    lines = [f"| method (seeds) | {head} |", "|---|" + "--:|" * len(folders)]
    for method, own in seeds.items():
        means = [statistics.mean(folder.gaps(method, own)) for folder in folders]
        best = max(means)
        cells = [f"**{one:.1%}**" if one == best else f"{one:.1%}" for one in means]
        lines.append(f"| `{method}` ({len(own)}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(folders: list[Folder], target: Path) -> None:
    """SVG: one panel for the gap, one for each method's validation loss of its first seed."""
    seeds = common(folders)
    with matplotlib.rc_context({"svg.hashsalt": "sweep", "svg.fonttype": "none"}):
        columns = 3
        rows = -(-(len(seeds) + 1) // columns)
        figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        first = panels[0]
        for method, own in seeds.items():
            shares = [statistics.mean(folder.gaps(method, own)) for folder in folders]
            first.plot([folder.scale for folder in folders], shares, marker="o", label=method)
        first.set_xscale("log", base=2)
        first.set_xlabel("times the learning rate")
        first.set_ylabel("share of the gap closed")
        first.legend(fontsize="x-small")
        for panel, (method, own) in zip(panels[1:], seeds.items(), strict=False):
            for folder in folders:
                curve = folder.curves[method, min(own)]
                steps, losses = [step for step, _ in curve], [loss for _, loss in curve]
                panel.plot(steps, losses, marker=".", label=f"x {folder.scale:g}")
            panel.set_title(method, fontsize="small")
            panel.set_yscale("log")
            panel.set_xlabel("steps")
            panel.set_ylabel("validation loss")
            panel.legend(fontsize="x-small")
        for panel in panels[: len(seeds) + 1]:
            panel.grid(alpha=0.3)
        for panel in panels[len(seeds) + 1 :]:
            panel.remove()
        figure.savefig(target, format="svg", metadata={"Date": None})


def main() -> None:
    """The table, and the drawing where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_sweep", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--drawing", type=Path, help="an SVG")
    given = parser.parse_args()
    folders = sorted((read(folder) for folder in given.folders), key=lambda one: one.scale)
    print(table(folders))
    if given.drawing:
        draw(folders, given.drawing)


if __name__ == "__main__":
    main()
