"""How much of the gap to the demo's teacher each method closes: methods by seeds, in processes of
their own, whose wall time and peak memory are told.

The dataset is the teacher's chains of thought on the demo's seed problems, the right ones, with its
top-k signal. On-policy methods start from the student of `sequence_level` with the same seed, as
their papers do; their time is their own. `sequence_level_longer` and `forward_kl_longer` do too,
for as many steps. What is in `--out` already isn't done again, a training that was stopped goes on
from its checkpoint; a folder of another size, rate or demo is refused:

    python -m benchmarks.quality --out .quality [--smoke] [--seeds 5] [--others] [--rate-scale 0.5]
        [--problems 300] [--methods forward_kl gkd] [--jobs 4]

writes results.json, table.md and gap.svg there after each run. `--others` adds the other methods
and divergences with one seed each; `--methods` leaves out all but the named ones and whom they
start from; `--rate-scale` multiplies every learning rate: a sweep is a folder for each, and so is
another number of `--problems`. `--jobs` trains as many at once, each with the threads that it
would have alone: for a machine with as many cores. `python -m benchmarks quality` does it in
.quality, with --quick in a temporary folder, too briefly to say anything of the methods.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality_data import DEMO, TEACHER, TOP_K, make_dataset, with_draws
from benchmarks.quality_table import Run, beside, mean_of, plot, summaries, table
from benchmarks.result import Result
from prompts.files import file_sha256
from trainer.compress.vllm_server import find_engine, serve
from trainer.loading import weight_files
from trainer.measurement import Measurement

BASE = DEMO / "models/student-base"
SKILL = "cot"
MAX_LENGTH = 256
HELD_OUT = DEMO / "data/evaluation.jsonl"
WORK = Path(".quality")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    problems: int
    seeds: int
    epochs: float
    on_policy_steps: int
    asked: int
    """Held-out problems."""
    rate_scale: float = 1.0


FULL = Size(problems=1500, seeds=5, epochs=8, on_policy_steps=150, asked=300)
SMOKE = Size(problems=64, seeds=1, epochs=0.5, on_policy_steps=1, asked=20)

FIRST = "sequence_level"
LONGER = "sequence_level_longer"
KL_LONGER = "forward_kl_longer"
"""Go on from `FIRST` for the steps that on-policy methods take: what more training alone does, and
what the teacher's distribution on the rows adds."""
METHODS: dict[str, dict[str, Any]] = {
    FIRST: {"method": "sequence_level"},
    "forward_kl": {"method": "kd"},
    "forward_kl_tau_2": {"method": "kd", "kd_temperature": 2.0},
    "reverse_kl": {"method": "kd", "divergence": {"kind": "reverse_kl"}},
    "stored_kl": {"method": "stored_kl"},
    "gkd": {"method": "gkd", "student_share": 0.5, "max_new_tokens": 96},
    "minillm": {"method": "minillm", "max_new_tokens": 96},
    LONGER: {"method": "sequence_level"},
    KL_LONGER: {"method": "kd", "kd_temperature": 2.0},
}
SERVED = "served_kl"
"""Asks a vLLM that serves the teacher beside it."""
DRAWN = "stored_kl_drawn"
"""Learns from draws in place of the k likeliest."""
OTHERS: dict[str, dict[str, Any]] = {
    "rationale_then_answer": {"method": "rationale_then_answer"},
    "step_by_step": {"method": "step_by_step"},
    DRAWN: {"method": "stored_kl"},
    "gkd_tau_2": {
        "method": "gkd",
        "student_share": 0.5,
        "max_new_tokens": 96,
        "kd_temperature": 2.0,
    },
    "forward_kl_tau_4": {"method": "kd", "kd_temperature": 4.0},
    "jsd": {"method": "kd", "divergence": {"kind": "jsd"}},
    "skew_kl": {"method": "kd", "divergence": {"kind": "skew_kl"}},
    "skew_reverse_kl": {"method": "kd", "divergence": {"kind": "skew_reverse_kl"}},
    "tvd": {"method": "kd", "divergence": {"kind": "tvd"}},
    "adaptive_kl": {"method": "kd", "divergence": {"kind": "adaptive_kl"}},
    "kl_and_hidden": {"method": "kd", "features": [{"kind": "hidden"}]},
    "kl_and_hidden_mse": {"method": "kd", "features": [{"kind": "hidden", "distance": "mse"}]},
    "kl_and_relation": {"method": "kd", "features": [{"kind": "relation"}]},
    "uld": {"method": "uld"},
    SERVED: {"method": "served_kl", "top_k": TOP_K, "served_model": TEACHER.name},
}
"""With one seed each."""
ON_POLICY = ("gkd", "gkd_tau_2", "minillm")
AGAIN = (*ON_POLICY, LONGER, KL_LONGER)
"""Begin with the student of `FIRST`."""
ALONE = (FIRST, LONGER, "stored_kl", DRAWN, "rationale_then_answer", "step_by_step")
"""Without a teacher in the process."""


def run(quick: bool) -> Result:
    """The best on-policy method's gap closed; the teacher is 1."""
    if not quick:
        return study(WORK, FULL)
    with tempfile.TemporaryDirectory() as place:
        return study(Path(place), SMOKE)


def study(out: Path, size: Size, jobs: int = 1, methods: Collection[str] = METHODS) -> Result:
    """All runs of `methods` that are missing, `jobs` at once; the table after each."""
    threads = settle(out, size)
    torch.set_num_threads(threads)
    dataset = make_dataset(out, size.problems)
    ends = {name: measured(out / f"{name}.json", model, size) for name, model in _ENDS.items()}
    base, teacher = _share(ends["base"]), _share(ends["teacher"])
    wanted = runs_of(methods, size.seeds)
    runs: list[Run] = []
    with ThreadPoolExecutor(jobs) as pool:
        begun: dict[tuple[str, int], Future[Run]] = {}
        for method, seed in wanted:
            after = begun[FIRST, seed] if method in AGAIN else None
            begun[method, seed] = pool.submit(
                one_run, out, dataset, method, seed, size, threads, after
            )
        try:
            for done in as_completed(begun.values()):
                runs.append(done.result())
                tell(out, _sorted(runs), base, teacher, size)
                print(f"{len(runs)} of {len(wanted)}: {runs[-1].name}", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    rows = summaries(_sorted(runs), base, teacher)
    print((out / "table.md").read_text("utf-8"), file=sys.stderr)
    gaps = [mean_of(rows, method) for method in (LONGER, KL_LONGER, "gkd")]
    best = max(mean_of(rows, method) for method in ON_POLICY if method in METHODS)
    return Result(
        name="quality",
        ours=best,
        unit="of the gap closed by the better on-policy method",
        ratio=best,
        target="sequence_level < forward_kl < gkd, from one student for as many steps",
        met=gaps[0] < gaps[1] < gaps[2],
        limit=1.0,
        growth=[row.figures for row in rows],
    )


def runs_of(methods: Collection[str], seeds: int) -> list[tuple[str, int]]:
    """Methods and seeds in order: the students that others start from come first, then what takes
    the longest."""
    first = [FIRST] if FIRST in methods or not set(AGAIN).isdisjoint(methods) else []
    everywhere = METHODS.keys() & methods
    order = [*first, *(method for method in (*AGAIN, *METHODS) if method in everywhere)]
    runs = [(method, seed) for method in dict.fromkeys(order) for seed in range(seeds)]
    return runs + [(method, 0) for method in OTHERS if method in methods]


def settle(out: Path, size: Size) -> int:
    """CPU threads of every run of this folder, pinned at its first. Raises SystemExit where the
    folder holds runs of another study: their figures don't belong in one table."""
    about = {
        **{name: value for name, value in vars(size).items() if name != "seeds"},
        "models": [file_sha256(path) for place in _ENDS.values() for path in weight_files(place)],
        "data": [file_sha256(path) for path in sorted((DEMO / "data").glob("*.jsonl"))],
    }
    kept = out / "study.json"
    if not kept.is_file():
        write_whole(kept, json.dumps({**about, "threads": torch.get_num_threads()}, indent=1))
    found = json.loads(kept.read_text("utf-8"))
    threads = int(found.pop("threads"))
    if differing := sorted(name for name in about if about[name] != found.get(name)):
        raise SystemExit(
            f"{out} holds runs with other {', '.join(differing)}: name another folder with --out"
        )
    return threads


def tell(out: Path, runs: list[Run], base: float, teacher: float, size: Size) -> None:
    """What there is so far."""
    rows = summaries(runs, base, teacher)
    write_whole(
        out / "results.json", json.dumps({"size": vars(size), "runs": [vars(r) for r in runs]})
    )
    told = [table(rows, base, teacher), beside(runs, LONGER, base, teacher)]
    write_whole(out / "table.md", "\n".join(filter(None, told)))
    plot(rows, out / "gap.svg")


_ENDS = {"base": BASE, "teacher": TEACHER}


def _sorted(runs: list[Run]) -> list[Run]:
    """As the table has them, whatever ended first."""
    methods = [*METHODS, *OTHERS]
    return sorted(runs, key=lambda run: (methods.index(run.method), run.seed))


def one_run(
    out: Path,
    dataset: Path,
    method: str,
    seed: int,
    size: Size,
    threads: int,
    after: "Future[Run] | None" = None,
) -> Run:
    """A training in a process of its own, measured; from its file where it is done. It begins when
    the run `after` which it comes has ended."""
    if after is not None:
        after.result()
    place, kept = out / f"{method}-{seed}", out / f"{method}-{seed}.json"
    if kept.is_file():
        return Run(**json.loads(kept.read_text("utf-8")))
    rows = with_draws(dataset) if method == DRAWN else dataset
    with served(method, place) as fields:
        peak = train(spec_of(out, rows, method, seed, size, threads) | fields, place)
    found = measured(place / "measurement.json", place / "model", size)
    made = Run(method, seed, _share(found), **taken(place, peak))
    write_whole(kept, json.dumps(vars(made)))
    return made


@contextmanager
def served(method: str, place: Path) -> Iterator[dict[str, Any]]:
    """What a spec says of a teacher in vLLM, which is there as long as the context."""
    if method != SERVED:
        yield {}
        return
    engine = find_engine()
    if engine is None:
        raise SystemExit(f"{SERVED} needs vLLM: no .venv-vllm was found")
    length, log = 2 * MAX_LENGTH, place.with_suffix(".vllm.log")
    with serve(engine, TEACHER, "bfloat16", length, log) as server:
        yield {"teacher": f"{server.url}/v1"}


def spec_of(
    out: Path, dataset: Path, method: str, seed: int, size: Size, threads: int
) -> dict[str, Any]:
    """A TrainSpec; a second training of an on-policy student takes a fifth of the rate."""
    again = method in AGAIN
    optimization = {
        "learning_rate": (4e-4 if again else 2e-3) * size.rate_scale,
        "batch_size": 32,
        "epochs": size.epochs,
        "max_steps": size.on_policy_steps if again else None,
        "warmup_ratio": 0.1,
        "max_length": MAX_LENGTH,
        "seed": seed,
        "checkpoint_steps": 50,
        "threads": threads,
    }
    student = out / f"{FIRST}-{seed}/model" if again else BASE
    named = {"dataset": str(dataset), "student": str(student), "optimization": optimization}
    chosen = {**METHODS, **OTHERS}[method]
    return {**chosen, **named} | ({} if method in ALONE else {"teacher": str(TEACHER)})


def measured(
    target: Path, model: Path, size: Size, skill: str = SKILL, data: Path = HELD_OUT
) -> Measurement:
    """On held-out problems, greedily; from its file where it is done."""
    from trainer.evaluate import measure
    from trainer.spec import EvalSpec

    if target.is_file():
        return Measurement.model_validate_json(target.read_text("utf-8"))
    asked = target.with_suffix(".asked.jsonl")
    rows = data.read_text("utf-8").splitlines()
    write_whole(asked, "\n".join(row for row in rows if json.loads(row)["skill"] == skill))
    found = measure(model, EvalSpec(data=str(asked), limit_per_skill=size.asked))
    write_whole(target, found.model_dump_json(indent=1))
    return found


def train(spec: dict[str, Any], out: Path) -> int:
    """Bytes of memory at the peak of the trainer's process; goes on where an earlier one ended."""
    file = out.with_suffix(".spec.json")
    write_whole(file, json.dumps(spec))
    words = [sys.executable, "-m", "trainer", "train", "--spec", str(file), "--out", str(out)]
    told = out.with_suffix(".log")
    with told.open("w") as log:
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{out.name} failed; see {told}")
    return usage.ru_maxrss * 1024


def taken(place: Path, peak: int) -> dict[str, Any]:
    """What a finished training took, as `Run` names it."""
    card = json.loads((place / "model/retort.json").read_text("utf-8"))
    return {
        "seconds": card["seconds"],
        "peak_mib": peak / 2**20,
        "steps": card["steps"],
        "tokens": card["tokens_learnt"],
    }


def _share(found: Measurement) -> float:
    return found.skills[SKILL].share


def write_whole(path: Path, text: str) -> None:
    """The file has all of it, or what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.writing")
    written.write_text(text, "utf-8")
    written.replace(path)


def main() -> None:
    """The study, in a folder that may hold a part of it already."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--out", type=Path, default=WORK)
    parser.add_argument("--smoke", action="store_true", help="a few rows and steps")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--others", action="store_true", help="the other methods, one seed each")
    parser.add_argument("--rate-scale", type=float, default=1.0, help="times every learning rate")
    parser.add_argument("--problems", type=int, help="that the teacher is asked")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *OTHERS])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    given = parser.parse_args()
    size = SMOKE if given.smoke else FULL
    size = replace(
        size,
        problems=given.problems or size.problems,
        seeds=given.seeds or size.seeds,
        rate_scale=given.rate_scale,
    )
    everything = [*METHODS, *(OTHERS if given.others else ())]
    study(given.out, size, given.jobs, given.methods or everything)


if __name__ == "__main__":
    main()
