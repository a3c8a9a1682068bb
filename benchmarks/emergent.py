"""Whether the demo's student gets what emerges in its teacher: chains of thought beside direct
answers, in-context learning of mappings that it never saw, instructions in new compositions, and
tasks that it was never shown, which its teacher did from demonstrations.

Each arm is a training on the teacher's right answers of one skill, from the student base or from
the teacher itself, pruned; it is measured on held-out problems. What is in `--out` already isn't
done again:

    python -m benchmarks.emergent --out .emergent [--seeds 3] [--jobs 2] [--smoke]
        [--skills icl tasks]

writes results.json and table.md there after each run.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.emergent_data import TASKS, TASKS_SHOWN, guessed, make_datasets
from benchmarks.quality import BASE, HELD_OUT, Size, measured, settle, train
from benchmarks.quality_data import TEACHER
from trainer.compress.chain import run as run_chain
from trainer.events import silent
from trainer.spec import CompressSpec

FULL = Size(problems=1500, seeds=3, epochs=8, on_policy_steps=0, asked=300)
SMOKE = Size(problems=48, seeds=1, epochs=0.5, on_policy_steps=0, asked=10)

PRUNED: dict[str, Any] = {
    "kind": "width",
    "feed_forward": 128,
    "key_value_groups": 2,
    "importance": "taylor",
}
"""What the teacher is cut to, by the rows of the skill: a third of its parameters."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A way to teach a skill; each is itself alone, since its fields can't be hashed."""

    skill: str
    name: str
    dataset: str
    start: Literal["base", "pruned"]
    fields: dict[str, Any]


_TEACHER = {"teacher": str(TEACHER), "kd_temperature": 2.0}
ARMS = (
    Arm("cot", "direct answers", "direct", "base", {"method": "sequence_level"}),
    Arm("cot", "rationale, then answer", "cot", "base", {"method": "rationale_then_answer"}),
    Arm("cot", "step by step", "cot", "base", {"method": "step_by_step"}),
    Arm("icl", "answers alone", "icl", "base", {"method": "sequence_level"}),
    Arm("icl", "meta-ICT", "icl", "base", {"method": "meta_ict", **_TEACHER}),
    Arm("if", "instruction tuning", "if", "base", {"method": "sequence_level"}),
    Arm("if", "with the teacher's KL", "if", "base", {"method": "kd", **_TEACHER}),
    Arm("icl", "pruned, answers alone", "icl", "pruned", {"method": "sequence_level"}),
    Arm("icl", "pruned, meta-ICT", "icl", "pruned", {"method": "meta_ict", **_TEACHER}),
    Arm("if", "pruned, instruction tuning", "if", "pruned", {"method": "sequence_level"}),
    Arm("if", "pruned, with the teacher's KL", "if", "pruned", {"method": "kd", **_TEACHER}),
    Arm(TASKS, "multitask-ICT", TASKS, "base", {"method": "multitask_ict", **_TEACHER}),
    Arm(TASKS, "pruned, multitask-ICT", TASKS, "pruned", {"method": "multitask_ict", **_TEACHER}),
)
SKILLS = tuple(dict.fromkeys(arm.skill for arm in ARMS))


def study(out: Path, size: Size, jobs: int = 1, skills: Collection[str] = SKILLS) -> str:
    """All arms of `skills` that are missing, `jobs` at once; the table, which is written after
    each."""
    arms = [arm for arm in ARMS if arm.skill in skills]
    threads = settle(out, size)
    torch.set_num_threads(threads)
    make_datasets(out, size.problems)
    starts = {
        (arm.start, arm.skill): BASE if arm.start == "base" else pruned(out, arm.dataset, threads)
        for arm in arms
    }
    models = starts | {("teacher", arm.skill): TEACHER for arm in arms}
    ends = {
        (role, skill): _accuracy(
            out / f"{role}-{skill}.json",
            model,
            size,
            TASKS_SHOWN if (role, skill) == ("teacher", TASKS) else skill,
        )
        for (role, skill), model in models.items()
    }
    guess = ""
    if "icl" in skills:
        chance = guessed(out / "teacher-icl.asked.jsonl")
        guess = f"\nicl: any of the labels that are shown is right in {chance:.1%}.\n"
    wanted = [(arm, seed) for seed in range(size.seeds) for arm in arms]
    found: dict[Arm, list[float]] = {arm: [] for arm in arms}

    def one(run: tuple[Arm, int]) -> float:
        arm, seed = run
        place = out / f"{ARMS.index(arm)}-{seed}"
        target = place.with_suffix(".measured.json")
        if not target.is_file():
            start = starts[arm.start, arm.skill]
            train(spec_of(out, arm, start, seed, size, threads), place)
        return _accuracy(target, place / "model", size, arm.skill)

    with ThreadPoolExecutor(jobs) as pool:
        for (arm, seed), share in zip(wanted, pool.map(one, wanted), strict=True):
            print(f"{arm.skill}: {arm.name}, seed {seed}: {share:.1%}", file=sys.stderr, flush=True)
            found[arm].append(share)
            told = table(found, ends) + guess
            (out / "table.md").write_text(told, "utf-8")
            by_name = {f"{arm.skill}: {arm.name}": shares for arm, shares in found.items()}
            (out / "results.json").write_text(json.dumps(by_name, indent=1), "utf-8")
    return told


def pruned(out: Path, dataset: str, threads: int) -> Path:
    """The teacher, cut and not healed."""
    made = out / f"pruned-{dataset}"
    spec = {"model": str(TEACHER), "dataset": str(out / dataset), "stages": [PRUNED]}
    chain = CompressSpec.model_validate({**spec, "serve_check": False, "threads": threads})
    return Path(run_chain(chain, made, silent)[-1].model)


def spec_of(
    out: Path, arm: Arm, student: Path, seed: int, size: Size, threads: int
) -> dict[str, Any]:
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
    named = {"dataset": str(out / arm.dataset), "student": str(student)}
    return {**arm.fields, **named, "optimization": optimization}


def table(found: dict[Arm, list[float]], ends: dict[tuple[str, str], float]) -> str:
    """Markdown: accuracy on held-out problems, mean and standard deviation over seeds."""
    lines = [
        "| skill: arm | student, mean ± sd (seeds) | before | teacher |",
        "|---|--:|--:|--:|",
    ]
    for arm, shares in found.items():
        if not shares:
            continue
        spread = f" ± {statistics.stdev(shares):.1%}" if len(shares) > 1 else ""
        lines.append(
            f"| {arm.skill}: {arm.name} | {statistics.mean(shares):.1%}{spread} ({len(shares)}) | "
            f"{ends[arm.start, arm.skill]:.1%} | {ends['teacher', arm.skill]:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _accuracy(target: Path, model: Path, size: Size, skill: str) -> float:
    ours = skill in (TASKS, TASKS_SHOWN)
    data = target.parent / f"{TASKS}.jsonl" if ours else HELD_OUT
    return measured(target, model, size, skill, data).skills[skill].share


def main() -> None:
    """The study, in a folder that may hold a part of it already."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emergent", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".emergent"))
    parser.add_argument("--smoke", action="store_true", help="a few rows and steps")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--skills", nargs="+", choices=SKILLS, default=SKILLS)
    given = parser.parse_args()
    size = SMOKE if given.smoke else FULL
    size = replace(size, seeds=given.seeds or size.seeds)
    print(study(given.out, size, given.jobs, given.skills))


if __name__ == "__main__":
    main()
