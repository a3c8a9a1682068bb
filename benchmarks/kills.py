"""Trainings of the demo's student killed with SIGKILL again and again, each beside one that nobody
disturbs: do both end with the same weights?

    python -m benchmarks.kills --out .kills [--methods stored_kl gkd minillm] [--kills 20]

A kill falls in each equal part of a run: every second one while a checkpoint is being written, the
last one as the finished student is, the others anywhere within a step. Every attempt is a process
of its own that goes on from what the one before left. What is in `--out` already isn't
done again. Prints a table, writes results.json, and exits with 1 where any weights differ.
"""

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kills_run import begin, ended, events
from benchmarks.quality import ALONE, BASE, METHODS
from benchmarks.quality_data import TEACHER, make_dataset
from prompts.files import file_sha256
from trainer.checkpoint import WRITING
from trainer.loading import weight_files

DEFAULT = ("stored_kl", "gkd", "minillm")
"""With something of their own to lose: a signal joined to rows, lambda's coin, drawn answers."""


@dataclass(frozen=True)
class Size:
    """Of a run."""

    kills: int = 20
    steps: int = 60
    """Optimizer steps, of two forward passes each."""
    checkpoint_steps: int = 3
    """What a kill loses at most."""
    problems: int = 200
    batch_size: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Kill:
    """When one is to come."""

    step: int
    """As soon as this one is made, counted from 1."""
    share: float
    """Of the time that what follows it takes."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an undisturbed run."""

    step_s: float
    save_s: float
    """From a step's end to the end of its checkpoint's writing."""
    end_s: float
    """From the last step to a finished student."""
    whole_s: float


@dataclass(frozen=True)
class Fallen:
    """What became of a kill."""

    killed: bool
    """False where the run had ended before."""
    begun: int
    """The checkpoint that the run went on from; 0 is the start."""
    step: int
    """Steps made when it fell."""
    half_written: bool
    """Whether it left a checkpoint, or a student, that was not whole."""
    seconds: float


def compare(out: Path, method: str, size: Size) -> dict[str, Any]:
    """Both runs of a method, and whether their weights are the same; goes on where it was."""
    spec = _spec(out, method, size)
    pace = undisturbed(spec, out / f"{method}-whole")
    cut, kept = out / f"{method}-cut", out / f"{method}-kills.json"
    found = [Fallen(**one) for one in json.loads(kept.read_text())] if kept.is_file() else []
    for kill in kills_of(size)[len(found) :]:
        found.append(struck(spec, cut, kill, delay_of(kill, pace, size)))
        kept.write_text(json.dumps([asdict(one) for one in found], indent=1), "utf-8")
        print(f"{method}: {found[-1]}", file=sys.stderr, flush=True)
    started = time.monotonic()
    last = begin(spec, cut)
    for _ in events(last):
        pass
    ended(last, 0, cut)
    told = [one for one in found if one.killed]
    sums = [_sums(out / f"{method}-{name}/model") for name in ("whole", "cut")]
    return {
        "method": method,
        "steps": size.steps,
        "kills": len(told),
        "after_step": [one.step for one in told],
        "half_written": sum(one.half_written for one in told),
        "whole_s": pace.whole_s,
        "cut_s": sum(one.seconds for one in found) + time.monotonic() - started,
        "identical": sums[0] == sums[1],
        "sha256": sums,
    }


def kills_of(size: Size) -> list[Kill]:
    """Seeded, in order."""
    chance = random.Random(size.seed)
    kills = []
    for number in range(size.kills):
        first, last = (size.steps * part // size.kills for part in (number, number + 1))
        step = chance.randint(first + 1, max(first + 1, last))
        if number % 2:  # up to where a checkpoint is written
            step = -(-step // size.checkpoint_steps) * size.checkpoint_steps
        step = size.steps if number == size.kills - 1 else min(step, size.steps)
        kills.append(Kill(step, chance.random()))
    return sorted(kills, key=lambda kill: kill.step)


def delay_of(kill: Kill, pace: Pace, size: Size) -> float:
    """Seconds after the step."""
    if kill.step == size.steps:
        return kill.share * pace.end_s
    return kill.share * (pace.step_s if kill.step % size.checkpoint_steps else pace.save_s)


def undisturbed(spec: Path, out: Path) -> Pace:
    """From the start to the end."""
    kept = out.with_suffix(".json")
    if kept.is_file():
        return Pace(**json.loads(kept.read_text("utf-8")))
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    run = begin(spec, out)
    seen = [(what, step, time.monotonic()) for what, step in events(run)]
    ended(run, 0, out)
    steps = {step: at for what, step, at in seen if what == "step"}
    saves = [at - steps[step] for what, step, at in seen if what == "checkpoint"]
    between = [steps[step] - steps[step - 1] for step in steps if step - 1 in steps]
    pace = Pace(
        step_s=statistics.median(between),
        save_s=statistics.median(saves),
        end_s=seen[-1][2] - steps[max(steps)],
        whole_s=time.monotonic() - started,
    )
    kept.write_text(json.dumps(asdict(pace), indent=1), "utf-8")
    return pace


def struck(spec: Path, out: Path, kill: Kill, delay_s: float) -> Fallen:
    """One attempt, killed. Raises RuntimeError where it fails by itself."""
    started, wall, begun, step = time.monotonic(), time.time(), 0, 0
    run = begin(spec, out)
    for what, step in events(run):
        begun = step if what == "begun" else begun
        if what == "step" and step >= kill.step:
            time.sleep(delay_s)
            break
    run.child.kill()  # steps that it made until now have been told
    step = max([step, *(made for what, made in events(run, step) if what == "step")])
    run.child.join()
    killed = run.child.exitcode != 0
    ended(run, -signal.SIGKILL if killed else 0, out)
    left = [*(out / "checkpoints" / WRITING).glob("*"), *out.glob(".writing-model")]
    half = any(path.stat().st_mtime > wall for path in left)
    return Fallen(killed, begun, step, half, time.monotonic() - started)


def _settle(out: Path, size: Size) -> None:
    """Raises SystemExit where the folder holds runs of another size."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "size.json"
    if not kept.is_file():
        kept.write_text(json.dumps(asdict(size)), "utf-8")
    if json.loads(kept.read_text("utf-8")) != asdict(size):
        raise SystemExit(f"{out} holds runs of another size: name another folder with --out")


def _spec(out: Path, method: str, size: Size) -> Path:
    """A TrainSpec, on few rows: several passes over them, measurements on the way."""
    optimization = {
        "learning_rate": 4e-4,
        "batch_size": size.batch_size,
        "accumulation": 2,
        "max_steps": size.steps,
        "max_length": 256,
        "checkpoint_steps": size.checkpoint_steps,
        "eval_steps": max(1, size.steps // 4),
        "seed": size.seed,
        "threads": 1,
    }
    dataset = make_dataset(out, size.problems)
    spec = {**METHODS[method], "dataset": str(dataset), "student": str(BASE)}
    if method not in ALONE:
        spec["teacher"] = str(TEACHER)
    file = out / f"{method}.spec.json"
    file.write_text(json.dumps({**spec, "optimization": optimization}, indent=1), "utf-8")
    return file


def _sums(model: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in weight_files(model)}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| method | kills | after steps | left half written | undisturbed | killed | weights |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for one in found:
        same = "identical" if one["identical"] else "DIFFERENT"
        lines.append(
            f"| `{one['method']}` | {one['kills']} | {', '.join(map(str, one['after_step']))} of "
            f"{one['steps']} | {one['half_written']} | {one['whole_s']:.0f} s | "
            f"{one['cut_s']:.0f} s | {same} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """All methods that are asked for, in a folder that may hold a part of them already."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".kills"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=DEFAULT)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = parser.parse_args()
    size = Size(**{name: vars(given)[name] for name in asdict(Size())})
    _settle(given.out, size)
    found = [compare(given.out, method, size) for method in given.methods]
    (given.out / "results.json").write_text(json.dumps(found, indent=1), "utf-8")
    print(table(found))
    return 0 if all(one["identical"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
