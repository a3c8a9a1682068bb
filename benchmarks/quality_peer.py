"""The share of the demo's gap that GKD closes in a wall time: ours beside trl 1.16's.

    PYTHONPATH=.peers python -m benchmarks.quality_peer [--study .quality] [--out DIR] [--seeds 1]

Both take the same rows, start (the study's `sequence_level` student of the seed), teacher, batch
size, rate and its schedule, lambda, divergence, length of answers and threads, each in a process of
its own. trl runs three times, each a whole schedule: with our number of steps, in our time, and
in LONGEST times it; on the way its students are kept, and asked later. Times are of training alone,
of a single thread its processor time (`trl_gkd.clock_of`).

What is in `--out` already isn't done again. Writes results.json and table.md there.
`python -m benchmarks quality_peer` does it, with --quick in a temporary folder, too briefly to say
anything.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer import NoPeerError, need_trl
from benchmarks.quality import (
    BASE,
    FIRST,
    FULL,
    SKILL,
    SMOKE,
    WORK,
    Size,
    measured,
    one_run,
    settle,
    spec_of,
    write_whole,
)
from benchmarks.quality_data import TEACHER, make_dataset
from benchmarks.quality_table import gap
from benchmarks.result import Result

METHOD = "gkd"
TARGET = 4.0
LONGEST = 4.0
"""Times our time that trl gets at most."""


@dataclass(frozen=True)
class Point:
    """A student at some moment of a run."""

    run: str
    """`ours`, or which of trl's."""
    seed: int
    step: int
    seconds: float
    """Of training."""
    accuracy: float
    """On held-out problems, 0..1."""
    finished: bool
    """Whether its schedule was at its end."""


@dataclass(frozen=True)
class Ends:
    """Accuracies of those that don't learn here, and of the start."""

    base: float
    teacher: float
    start: float

    def gap(self, accuracy: float) -> float:
        """Share of the gap between base and teacher."""
        return gap(accuracy, self.base, self.teacher)


def run(quick: bool) -> Result:
    """Times our time until trl has closed as much of the gap."""
    need_trl()
    if not quick:
        return study(WORK, WORK / "peer", FULL, 1)
    with tempfile.TemporaryDirectory() as place:
        return study(Path(place), Path(place) / "peer", SMOKE, 1)


def study(source: Path, out: Path, size: Size, seeds: int) -> Result:
    """All seeds; `source` is the folder of a quality study, of which what is missing is made."""
    threads = settle(source, size)
    dataset = make_dataset(source, size.problems)
    points: list[Point] = []
    ends: list[Ends] = []
    for seed in range(seeds):
        one_run(source, dataset, FIRST, seed, size, threads)
        spec = spec_of(source, dataset, METHOD, seed, size, threads)
        place = out / str(seed)
        ends.append(_ends(source, place, Path(spec["student"]), size))
        points += both(place, spec, seed, size)
        write_whole(out / "results.json", json.dumps([asdict(point) for point in points], indent=1))
        write_whole(out / "table.md", table(points, ends))
    print((out / "table.md").read_text("utf-8"), file=sys.stderr)
    return result(points, ends)


def both(out: Path, spec: dict[str, Any], seed: int, size: Size) -> list[Point]:
    """Ours and trl's three."""
    first = ours(out / "ours", spec, seed, size)
    steps, seconds = first.step, first.seconds
    same = theirs(out / "steps", spec, seed, size, steps, seconds)
    pace = same[-1].seconds / steps
    points = [first, *same]
    for name, share in (("time", 1.0), ("longest", LONGEST)):
        many = max(1, round(share * seconds / pace))
        points += theirs(out / name, spec, seed, size, many, seconds)
    return points


def ours(out: Path, spec: dict[str, Any], seed: int, size: Size) -> Point:
    """At its end."""
    if not (out / "seconds.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        _child(out, spec, "--ours")
    seconds = json.loads((out / "seconds.json").read_text("utf-8"))
    card = json.loads((out / "model/retort.json").read_text("utf-8"))
    accuracy = _accuracy(out / "accuracy.json", out / "model", size)
    return Point("ours", seed, card["steps"], seconds, accuracy, True)


def theirs(
    out: Path, spec: dict[str, Any], seed: int, size: Size, steps: int, mark_s: float
) -> list[Point]:
    """A run of trl's: its students at each half of our time, and at its end."""
    if not (out / "run.json").is_file():
        marks = [str(mark_s * half / 2) for half in range(1, round(2 * LONGEST) + 1)]
        _child(out, spec, "--steps", str(steps), "--marks", *marks)
    kept = json.loads((out / "run.json").read_text("utf-8"))["kept"]
    points = []
    for number, one in enumerate(kept):
        model = Path(one["model"])
        accuracy = _accuracy(model.with_suffix(".json"), model, size)
        finished = number == len(kept) - 1
        points.append(Point(out.name, seed, one["step"], one["seconds"], accuracy, finished))
    return points


def _child(out: Path, spec: dict[str, Any], *words: str) -> None:
    write_whole(out / "spec.json", json.dumps(spec))
    named = ["--spec", str(out / "spec.json"), "--out", str(out), *words]
    with (out / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.trl_gkd", *named],
            stdout=log,
            stderr=log,
            check=True,
        )


def result(points: list[Point], ends: list[Ends]) -> Result:
    """Means over seeds; where trl never got there, the ratio is a lower bound."""
    rows = [figures(points, seed, end) for seed, end in enumerate(ends)]
    mean = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    return Result(
        name="quality_peer",
        ours=mean["ours_s"],
        unit="s for our share of the gap",
        ratio=mean["needed_s"] / mean["ours_s"],
        target=f">= {TARGET} x as long for as much by trl's GKD",
        met=mean["needed_s"] >= TARGET * mean["ours_s"],
        peer=mean["needed_s"],
        growth=rows,
    )


def figures(points: list[Point], seed: int, ends: Ends) -> dict[str, float]:
    """Of one seed."""
    mine = [point for point in points if point.seed == seed]
    own = [point for point in mine if point.run == "ours"]
    peer = sorted((p for p in mine if p.run != "ours"), key=lambda point: point.seconds)
    finished = {point.run: point for point in peer if point.finished}
    reached = [point for point in peer if point.accuracy >= own[0].accuracy]
    return {
        "seed": seed,
        "start_gap": ends.gap(ends.start),
        "ours_s": statistics.mean(point.seconds for point in own),
        "ours_gap": ends.gap(own[0].accuracy),
        "equal_time_gap": ends.gap(finished["time"].accuracy),
        "equal_steps_gap": ends.gap(finished["steps"].accuracy),
        "equal_steps_s": finished["steps"].seconds,
        "longest_gap": ends.gap(finished["longest"].accuracy),
        "reached": float(bool(reached)),
        "needed_s": (reached or peer[-1:])[0].seconds,
    }


def table(points: list[Point], ends: list[Ends]) -> str:
    """Markdown, a line for each student."""
    lines = [
        "| run | seed | step | time | accuracy | gap closed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one in points:
        name = one.run if one.run == "ours" else f"trl, {one.run}"
        lines.append(
            f"| {name}{'' if one.finished else ', on the way'} | {one.seed} | {one.step} | "
            f"{one.seconds:.1f} s | {one.accuracy:.1%} | {ends[one.seed].gap(one.accuracy):.1%} |"
        )
    for seed, end in enumerate(ends):
        lines.append(f"| the start | {seed} | 0 | | {end.start:.1%} | {end.gap(end.start):.1%} |")
    return "\n".join(lines) + "\n"


def _ends(source: Path, out: Path, start: Path, size: Size) -> Ends:
    return Ends(
        _accuracy(source / "base.json", BASE, size),
        _accuracy(source / "teacher.json", TEACHER, size),
        _accuracy(out / "start.json", start, size),
    )


def _accuracy(target: Path, model: Path, size: Size) -> float:
    return measured(target, model, size).skills[SKILL].share


def main() -> None:
    """The comparison, in a folder that may hold a part of it already."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_peer", description=__doc__)
    parser.add_argument("--study", type=Path, default=WORK, help="folder of benchmarks.quality")
    parser.add_argument("--out", type=Path, help="default: peer in the study's folder")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few rows and steps")
    given = parser.parse_args()
    try:
        need_trl()
    except NoPeerError as error:
        raise SystemExit(str(error)) from error
    size = SMOKE if given.smoke else FULL
    found = study(given.study, given.out or given.study / "peer", size, given.seeds)
    print(json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
