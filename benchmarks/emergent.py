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
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.emergent_data import FEW, TASKS, TASKS_SHOWN, asked_as, guessed, make_datasets
from benchmarks.quality import BASE, HELD_OUT, Size, measured, settle, taken, train, write_whole
from benchmarks.quality_data import TEACHER
from benchmarks.quality_table import Run, summaries
from trainer.compress.chain import run as run_chain
from trainer.events import silent
from trainer.spec import CompressSpec, StepByStep

FULL = Size(problems=1500, seeds=3, epochs=8, on_policy_steps=0, asked=300)
SMOKE = Size(problems=48, seeds=1, epochs=0.5, on_policy_steps=0, asked=10)

TIMES = {FEW: 3}
"""As many epochs as the other skills take."""
LEAD = 0.1
"""Of a teacher before a start, from which on a share of the gap says something."""

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
    asked: str = ""
    """Stands before each question that the student is measured on."""

    @property
    def training(self) -> str:
        """Its folder's name. Arms that are asked otherwise share one."""
        parts = [self.start, self.dataset, self.fields["method"]]
        if "label_share" in self.fields:
            parts.append(f"labels{self.fields['label_share']:.0%}".rstrip("%"))
        parts += ["worded"] if "label_template" in self.fields else []
        return "-".join(parts)


_TEACHER = {"teacher": str(TEACHER), "kd_temperature": 2.0}
_STEPS = {"method": "step_by_step"}
_MORE_STEPS = {"method": "step_by_step", "label_share": 0.2}
_WORDED = {**_MORE_STEPS, "label_template": "The answer is {{ answer }}."}
"""As the direct answers are."""
_LABELS = {"method": "step_by_step", "label_share": 1.0}
_RATIONALE = StepByStep.model_fields["rationale_prefix"].default
ARMS = (
    Arm("cot", "direct answers", "direct", "base", {"method": "sequence_level"}),
    Arm("cot", "rationale, then answer", "cot", "base", {"method": "rationale_then_answer"}),
    Arm("cot", "step by step, asked for the answer", "cot", "base", _STEPS),
    Arm("cot", "step by step, asked for the steps", "cot", "base", _STEPS, _RATIONALE),
    Arm("cot", "labels alone", "cot", "base", _LABELS),
    Arm("cot", "step by step, labels a fifth", "cot", "base", _MORE_STEPS),
    Arm("cot", "step by step, labels a fifth, worded", "cot", "base", _WORDED),
    Arm("cot", "pruned, direct answers", "direct", "pruned", {"method": "sequence_level"}),
    Arm("cot", "pruned, step by step", "cot", "pruned", _STEPS),
    Arm(FEW, "direct answers", f"{FEW}-direct", "base", {"method": "sequence_level"}),
    Arm(FEW, "labels alone", FEW, "base", _LABELS),
    Arm(FEW, "step by step, asked for the answer", FEW, "base", _STEPS),
    Arm(FEW, "step by step, labels a fifth", FEW, "base", _MORE_STEPS),
    Arm(FEW, "step by step, labels a fifth, worded", FEW, "base", _WORDED),
    Arm(FEW, "step by step, asked for the steps", FEW, "base", _STEPS, _RATIONALE),
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
        (arm.start, arm.skill): BASE if arm.start == "base" else pruned(out, arm.skill, threads)
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
    wanted: dict[tuple[str, int], list[Arm]] = defaultdict(list)
    for seed in range(size.seeds):
        for arm in arms:
            wanted[arm.training, seed].append(arm)
    found: dict[Arm, list[Run]] = {arm: [] for arm in arms}

    def one(training: tuple[str, int]) -> list[Run]:
        seed, told = training[1], wanted[training]
        return [run_of(out, arm, starts[arm.start, arm.skill], seed, size, threads) for arm in told]

    with ThreadPoolExecutor(jobs) as pool:
        for training, runs in zip(wanted, pool.map(one, wanted), strict=True):
            for arm, run in zip(wanted[training], runs, strict=True):
                print(f"{run.name}: {run.accuracy:.1%}", file=sys.stderr, flush=True)
                found[arm].append(run)
            told = table(found, ends) + guess
            write_whole(out / "table.md", told)
            done = [vars(run) for runs in found.values() for run in runs]
            write_whole(out / "results.json", json.dumps(done, indent=1))
    return told


def run_of(out: Path, arm: Arm, start: Path, seed: int, size: Size, threads: int) -> Run:
    """A training in a process of its own, where it isn't done, and what its student is right in."""
    place = out / f"{arm.training}-{seed}"
    kept = place.with_suffix(".taken.json")
    if not kept.is_file():
        peak = train(spec_of(out, arm, start, seed, size, threads), place)
        write_whole(kept, json.dumps(taken(place, peak)))
    target = out / f"{place.name}{'-asked-otherwise' if arm.asked else ''}.measured.json"
    share = _accuracy(target, place / "model", size, arm.skill, arm.asked)
    return Run(f"{arm.skill}: {arm.name}", seed, share, **json.loads(kept.read_text("utf-8")))


def pruned(out: Path, skill: str, threads: int) -> Path:
    """The teacher, cut and not healed."""
    made = out / f"pruned-{skill}"
    spec = {"model": str(TEACHER), "dataset": str(out / skill), "stages": [PRUNED]}
    chain = CompressSpec.model_validate({**spec, "serve_check": False, "threads": threads})
    return Path(run_chain(chain, made, silent)[-1].model)


def spec_of(
    out: Path, arm: Arm, student: Path, seed: int, size: Size, threads: int
) -> dict[str, Any]:
    """A TrainSpec."""
    optimization = {
        "learning_rate": 2e-3 * size.rate_scale,
        "batch_size": 32,
        "epochs": size.epochs * TIMES.get(arm.skill, 1),
        "warmup_ratio": 0.1,
        "max_length": 256,
        "seed": seed,
        "checkpoint_steps": 50,
        "threads": threads,
    }
    named = {"dataset": str(out / arm.dataset), "student": str(student)}
    return {**arm.fields, **named, "optimization": optimization}


def table(found: dict[Arm, list[Run]], ends: dict[tuple[str, str], float]) -> str:
    """Markdown: accuracy on held-out problems, mean and standard deviation over seeds, beside the
    student's start and its teacher, and what the training took."""
    lines = [
        "| skill: arm | student, mean ± sd (seeds) | before | teacher | gap closed | "
        "wall time, median | tokens learnt | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for arm, runs in found.items():
        before, teacher = ends[arm.start, arm.skill], ends["teacher", arm.skill]
        for row in summaries(runs, before, teacher):
            closed = f"{row.gap:.1%}" if teacher - before >= LEAD else "-"
            shares = [run.accuracy for run in runs]
            spread = f" ± {statistics.stdev(shares):.1%}" if len(shares) > 1 else ""
            lines.append(
                f"| {row.method} | {row.accuracy:.1%}{spread} ({len(shares)}) | {before:.1%} | "
                f"{teacher:.1%} | {closed} | {row.seconds:.0f} s | {row.tokens:,.0f} | "
                f"{row.peak_mib:.0f} MiB |"
            )
    return "\n".join(lines) + "\n"


def _accuracy(target: Path, model: Path, size: Size, skill: str, asked: str = "") -> float:
    ours = {TASKS: TASKS, TASKS_SHOWN: TASKS, FEW: FEW}
    data = target.parent / f"{ours[skill]}.jsonl" if skill in ours else HELD_OUT
    if asked:
        data = asked_as(data, target.with_suffix(".jsonl"), asked)
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
