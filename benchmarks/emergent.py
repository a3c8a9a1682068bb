"""Whether the demo's student gets what emerges in its teacher: chains of thought beside direct
answers, in-context learning of mappings that it never saw, instructions in new compositions.

Each arm is a training from the student base on the teacher's right answers of one skill, measured
on held-out problems of it; what is in `--out` already isn't done again:

    python -m benchmarks.emergent --out .emergent [--seeds 3] [--smoke]

writes results.json and table.md there after each run.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.emergent_data import make_datasets
from benchmarks.quality import BASE, Size, measured, settle, train
from benchmarks.quality_data import TEACHER

FULL = Size(problems=1500, seeds=3, epochs=8, on_policy_steps=0, asked=300)
SMOKE = Size(problems=48, seeds=1, epochs=0.5, on_policy_steps=0, asked=10)


@dataclass(frozen=True)
class Arm:
    """A way to teach a skill."""

    skill: str
    name: str
    dataset: str
    fields: dict[str, Any]


ARMS = (
    Arm("cot", "direct answers", "direct", {"method": "sequence_level"}),
    Arm("cot", "rationale, then answer", "cot", {"method": "rationale_then_answer"}),
    Arm("cot", "step by step", "cot", {"method": "step_by_step"}),
    Arm("icl", "answers alone", "icl", {"method": "sequence_level"}),
    Arm("icl", "meta-ICT", "icl", {"method": "meta_ict", "teacher": str(TEACHER)}),
    Arm("if", "instruction tuning", "if", {"method": "sequence_level"}),
    Arm("if", "with the teacher's KL", "if", {"method": "kd", "teacher": str(TEACHER)}),
)


def study(out: Path, size: Size) -> str:
    """All arms that are missing; the table."""
    threads = settle(out, size)
    make_datasets(out, size.problems)
    found: dict[str, list[float]] = {}
    ends = {
        (role, skill): _accuracy(out / f"{role}-{skill}.json", model, size, skill)
        for role, model in (("base", BASE), ("teacher", TEACHER))
        for skill in dict.fromkeys(arm.skill for arm in ARMS)
    }
    for seed in range(size.seeds):
        for number, arm in enumerate(ARMS):
            print(f"{arm.skill}: {arm.name}, seed {seed}", file=sys.stderr, flush=True)
            place = out / f"{number}-{seed}"
            spec = spec_of(out, arm, seed, size, threads)
            target = place.with_suffix(".measured.json")
            if not target.is_file():
                train(spec, place)
            share = _accuracy(target, place / "model", size, arm.skill)
            found.setdefault(f"{arm.skill}: {arm.name}", []).append(share)
            told = table(found, ends)
            (out / "table.md").write_text(told, "utf-8")
            (out / "results.json").write_text(json.dumps(found, indent=1), "utf-8")
    return told


def spec_of(out: Path, arm: Arm, seed: int, size: Size, threads: int) -> dict[str, Any]:
    """A TrainSpec."""
    optimization = {
        "learning_rate": 2e-3 * size.rate_scale,
        "batch_size": 32,
        "epochs": size.epochs,
        "warmup_ratio": 0.1,
        "max_length": 256,
        "seed": seed,
        "checkpoint_steps": 50,
        "threads": threads,
    }
    named = {"dataset": str(out / arm.dataset), "student": str(BASE)}
    return {**arm.fields, **named, "optimization": optimization}


def table(found: dict[str, list[float]], ends: dict[tuple[str, str], float]) -> str:
    """Markdown: accuracy on held-out problems, mean and standard deviation over seeds."""
    lines = ["| skill: arm | student, mean ± sd (seeds) | base | teacher |", "|---|--:|--:|--:|"]
    for name, shares in found.items():
        skill = name.partition(":")[0]
        spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
        lines.append(
            f"| {name} | {statistics.mean(shares):.1%} ± {spread:.1%} ({len(shares)}) | "
            f"{ends['base', skill]:.1%} | {ends['teacher', skill]:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _accuracy(target: Path, model: Path, size: Size, skill: str) -> float:
    return measured(target, model, size, skill).skills[skill].share


def main() -> None:
    """The study, in a folder that may hold a part of it already."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emergent", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".emergent"))
    parser.add_argument("--smoke", action="store_true", help="a few rows and steps")
    parser.add_argument("--seeds", type=int)
    given = parser.parse_args()
    size = SMOKE if given.smoke else FULL
    print(study(given.out, Size(**{**vars(size), "seeds": given.seeds or size.seeds})))


if __name__ == "__main__":
    main()
