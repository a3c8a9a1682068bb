"""What the quality study found: a table and a drawing."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    seed: int
    accuracy: float
    """On held-out problems, 0..1."""
    seconds: float
    """Wall time of the training."""
    peak_mib: float
    """Memory of its process at its peak."""
    steps: int
    tokens: int = 0
    """Learnt from."""

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Summary:
    """A method over its seeds."""

    method: str
    gaps: tuple[float, ...]
    """Share of the gap between base and teacher, a number for each seed."""
    accuracy: float
    seconds: float
    peak_mib: float
    tokens: float

    @property
    def gap(self) -> float:
        """Mean over seeds."""
        return statistics.mean(self.gaps)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 of one."""
        return statistics.stdev(self.gaps) if len(self.gaps) > 1 else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """As numbers."""
        return {
            "seeds": len(self.gaps),
            "gap": self.gap,
            "spread": self.spread,
            "accuracy": self.accuracy,
            "seconds": self.seconds,
            "peak_mib": self.peak_mib,
            "tokens": self.tokens,
        }


def gap(accuracy: float, base: float, teacher: float) -> float:
    """Share of the gap between two accuracies; 0 where the teacher is no better."""
    lead = teacher - base
    return (accuracy - base) / lead if lead > 0 else 0.0


def summaries(runs: list[Run], base: float, teacher: float) -> list[Summary]:
    """By method, in the runs' order. base and teacher are accuracies."""
    found = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        gaps = tuple(gap(run.accuracy, base, teacher) for run in own)
        found.append(
            Summary(
                method,
                gaps,
                statistics.mean(run.accuracy for run in own),
                statistics.median(run.seconds for run in own),
                max(run.peak_mib for run in own),
                statistics.median(run.tokens for run in own),
            )
        )
    return found


def mean_of(rows: list[Summary], method: str) -> float:
    """A method's mean share of the gap; nan where it has no run."""
    return next((row.gap for row in rows if row.method == method), math.nan)


def table(rows: list[Summary], base: float, teacher: float) -> str:
    """Markdown."""
    lines = [
        f"Base {base:.1%}, teacher {teacher:.1%} of the held-out problems.",
        "",
        "| method | gap closed, mean ± sd (seeds) | accuracy | wall time, median | tokens learnt | "
        "peak memory |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| `{row.method}` | {row.gap:.1%} ± {row.spread:.1%} ({len(row.gaps)}) | "
        f"{row.accuracy:.1%} | {row.seconds:.0f} s | {row.tokens:,.0f} | {row.peak_mib:.0f} MiB |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def beside(runs: list[Run], method: str, base: float, teacher: float) -> str:
    """Markdown: how much more of the gap others with the same seeds close than `method`, mean over
    seeds and its standard error; empty with fewer than two seeds."""
    accuracies = {(run.method, run.seed): run.accuracy for run in runs}
    seeds = [seed for named, seed in accuracies if named == method]
    lines = []
    for other in dict.fromkeys(run.method for run in runs if run.method != method):
        if len(seeds) < 2 or any((other, seed) not in accuracies for seed in seeds):
            continue
        more = [
            gap(accuracies[other, seed], base, teacher)
            - gap(accuracies[method, seed], base, teacher)
            for seed in seeds
        ]
        error = statistics.stdev(more) / math.sqrt(len(more))
        lines.append(f"| `{other}` | {statistics.mean(more):+.1%} ± {error:.1%} |")
    head = [f"| seed by seed | more than `{method}`, mean ± standard error |", "|---|--:|"]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


def plot(rows: list[Summary], target: Path) -> None:
    """A line for each method, the best on top: the share of the gap (a point for each seed, a bar
    at the mean), wall time and tokens. Methods below the base are named at the edge."""
    rows = sorted(rows, key=lambda row: row.gap)
    lines = range(len(rows))
    with matplotlib.rc_context({"svg.hashsalt": "quality", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 1.2 + 0.26 * len(rows)), layout="constrained")
        gaps, times, tokens = figure.subplots(1, 3, sharey=True, width_ratios=(3, 1, 1))
        edge = max(0.0, min((min(row.gaps) for row in rows if row.gap > 0), default=0.0) - 0.02)
        gaps.set_xlim(left=edge)
        for line, row in zip(lines, rows, strict=True):
            if row.gap <= 0:
                gaps.text(edge, line, f" \N{LEFTWARDS ARROW} {row.gap:.1%}", va="center")
                continue
            gaps.scatter(row.gaps, [line] * len(row.gaps), s=16, color="C0", alpha=0.6)
            gaps.scatter(row.gap, line, marker="|", s=160, color="C1")
        gaps.set_yticks(lines, [row.method for row in rows])
        gaps.set_xlabel("share of the gap closed")
        times.barh(lines, [row.seconds for row in rows], height=0.5)
        times.set_xlabel("wall time, s")
        tokens.barh(lines, [row.tokens / 1000 for row in rows], height=0.5)
        tokens.set_xlabel("tokens learnt, thousands")
        for axes in (gaps, times, tokens):
            axes.grid(alpha=0.3, axis="x")
        figure.savefig(target, format="svg", metadata={"Date": None})
