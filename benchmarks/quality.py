"""How much of the gap to the demo's teacher each method closes: methods by seeds, in processes of
their own, whose wall time and peak memory are told.

The dataset is the teacher's chains of thought on the demo's seed problems, the right ones, with its
top-k signal. On-policy methods start from the student of `sequence_level` with the same seed, as
their papers do; their time is their own. What is in `--out` already isn't done again:

    python -m benchmarks.quality --out .quality [--smoke] [--seeds 5]

writes results.json, table.md and gap.svg there. `python -m benchmarks quality` does it in .quality,
with --quick in a temporary folder, too briefly to say anything of the methods.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.quality_table import Run, mean_of, plot, summaries, table
from benchmarks.result import Result
from prompts.dataset import import_dataset
from prompts.record import Message
from prompts.signal import (
    SignalHeader,
    TopKRow,
    template_sha256,
    tokenizer_sha256,
    top_k_row,
    vocabulary_size,
    write_signal,
)
from prompts.verify import same_number
from trainer.batch import pad
from trainer.data import TokenRow, encode, read_records, render_prompts
from trainer.generation import answer_greedily
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.measurement import Measurement
from trainer.methods.teacher import Teacher
from trainer.objectives import tempered

DEMO = Path(__file__).parent.parent / "examples/demo"
TEACHER, BASE = DEMO / "models/teacher", DEMO / "models/student-base"
SKILL = "cot"
TOP_K = 16
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


FULL = Size(problems=1500, seeds=5, epochs=8, on_policy_steps=150, asked=300)
SMOKE = Size(problems=64, seeds=1, epochs=0.5, on_policy_steps=1, asked=20)

FIRST = "sequence_level"
METHODS: dict[str, dict[str, Any]] = {
    FIRST: {"method": "sequence_level"},
    "forward_kl": {"method": "kd"},
    "reverse_kl": {"method": "kd", "divergence": {"kind": "reverse_kl"}},
    "stored_top_k": {"method": "stored_kl"},
    "gkd": {"method": "gkd", "student_share": 0.5, "max_new_tokens": 80},
    "minillm": {"method": "minillm", "max_new_tokens": 80},
}
ON_POLICY = ("gkd", "minillm")


def run(quick: bool) -> Result:
    """The best on-policy method's gap closed; the teacher is 1."""
    if not quick:
        return study(WORK, FULL)
    with tempfile.TemporaryDirectory() as place:
        return study(Path(place), SMOKE)


def study(out: Path, size: Size) -> Result:
    """All runs that are missing, then the table."""
    dataset = make_dataset(out, size)
    ends = {name: measured(out / f"{name}.json", model, size) for name, model in _ENDS.items()}
    runs = [
        one_run(out, dataset, method, seed, size)
        for seed in range(size.seeds)
        for method in METHODS
    ]
    rows = summaries(runs, _share(ends["base"]), _share(ends["teacher"]))
    _write(out / "results.json", json.dumps({"size": vars(size), "runs": [vars(r) for r in runs]}))
    _write(out / "table.md", table(rows, _share(ends["base"]), _share(ends["teacher"])))
    plot(rows, out / "gap.svg")
    print((out / "table.md").read_text("utf-8"), file=sys.stderr)
    order = [mean_of(rows, method) for method in (FIRST, "forward_kl", "gkd")]
    best = max(mean_of(rows, method) for method in ON_POLICY)
    return Result(
        name="quality",
        ours=best,
        unit="of the gap closed by the better on-policy method",
        ratio=best,
        target="sequence_level < forward_kl < gkd",
        met=order[0] < order[1] < order[2],
        limit=1.0,
        growth=[row.figures for row in rows],
    )


_ENDS = {"base": BASE, "teacher": TEACHER}


def one_run(out: Path, dataset: Path, method: str, seed: int, size: Size) -> Run:
    """A training in a process of its own, measured; from its file where it is done."""
    place, kept = out / f"{method}-{seed}", out / f"{method}-{seed}.json"
    if kept.is_file():
        return Run(**json.loads(kept.read_text("utf-8")))
    spec = spec_of(out, dataset, method, seed, size)
    _write(out / f"{method}-{seed}.spec.json", json.dumps(spec))
    peak = _train(out / f"{method}-{seed}.spec.json", place)
    card = json.loads((place / "model/retort.json").read_text("utf-8"))
    found = measured(place / "measurement.json", place / "model", size)
    made = Run(method, seed, _share(found), card["seconds"], peak / 2**20, card["steps"])
    _write(kept, json.dumps(vars(made)))
    return made


def spec_of(out: Path, dataset: Path, method: str, seed: int, size: Size) -> dict[str, Any]:
    """A TrainSpec; a second training of an on-policy student takes a fifth of the rate."""
    again = method in ON_POLICY
    optimization = {
        "learning_rate": 4e-4 if again else 2e-3,
        "batch_size": 32,
        "epochs": size.epochs,
        "max_steps": size.on_policy_steps if again else None,
        "warmup_ratio": 0.1,
        "max_length": 256,
        "seed": seed,
        "checkpoint_steps": 50,
        "threads": torch.get_num_threads(),
    }
    student = out / f"{FIRST}-{seed}/model" if again else BASE
    named = {"dataset": str(dataset), "student": str(student), "optimization": optimization}
    alone = method in (FIRST, "stored_top_k")
    return {**METHODS[method], **named} | ({} if alone else {"teacher": str(TEACHER)})


def measured(target: Path, model: Path, size: Size) -> Measurement:
    """On held-out problems, greedily; from its file where it is done."""
    from trainer.evaluate import measure
    from trainer.spec import EvalSpec

    if target.is_file():
        return Measurement.model_validate_json(target.read_text("utf-8"))
    asked = target.with_suffix(".asked.jsonl")
    rows = (DEMO / "data/evaluation.jsonl").read_text("utf-8").splitlines()
    _write(asked, "\n".join(row for row in rows if json.loads(row)["skill"] == SKILL))
    found = measure(model, EvalSpec(data=str(asked), limit_per_skill=size.asked))
    _write(target, found.model_dump_json(indent=1))
    return found


def make_dataset(out: Path, size: Size) -> Path:
    """The teacher's right answers, a tenth of them held out, with its signal written last."""
    if (out / "dataset/signal/teacher.signal").is_file():
        return out / "dataset"
    model, tokenizer = load_model(TEACHER), load_tokenizer(TEACHER)
    lines = (DEMO / "data/cot.seeds.jsonl").read_text("utf-8").splitlines()[: size.problems]
    seeds = [json.loads(line) for line in lines]
    asked = [f"{seed['question']} Think step by step." for seed in seeds]
    prompts = render_prompts([[Message(role="user", content=one)] for one in asked], tokenizer)
    answers = answer_greedily(model, prompts, 96, 100, end_ids(model, tokenizer))
    rows = []
    for number, (seed, prompt, ids) in enumerate(zip(seeds, asked, answers.ids, strict=True)):
        said = str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        if _is_right(said, seed["answer"]):
            rows.append(
                _row(seed["id"], prompt, said, "validation" if number % 10 == 0 else "train")
            )
    _write(out / "rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    import_dataset(out / "rows.jsonl", out / "dataset", kind="cot")
    _record(out / "dataset", model, tokenizer)
    return out / "dataset"


def _row(name: str, prompt: str, said: str, split: str) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": said}],
        "reasoning": said,
        "split": split,
    }


def _is_right(said: str, gold: str) -> bool:
    _, closing, number = said.rpartition("The answer is ")
    return bool(closing) and same_number(number.rstrip("."), gold)


def _record(dataset: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    header = SignalHeader(
        kind="top_k",
        width=TOP_K,
        teacher="demo-teacher",
        tokenizer_sha256=tokenizer_sha256(TEACHER),
        template_sha256=template_sha256(TEACHER),
        vocabulary=vocabulary_size(TEACHER),
    )
    ends = end_ids(model, tokenizer)
    records = [*read_records(dataset, "train"), *read_records(dataset, "validation")]
    teacher = Teacher(model)
    signals = (
        (row.row, _signal(teacher, row)) for row in encode(records, tokenizer, 512, ends).rows
    )
    (dataset / "signal").mkdir(exist_ok=True)
    write_signal(dataset / "signal/teacher.signal", header, signals)


@torch.no_grad()
def _signal(teacher: Teacher, row: TokenRow) -> TopKRow:
    log_p = tempered(teacher.head.logits(teacher.kept(pad([row]))), 1.0)
    found, ids = log_p.topk(TOP_K)
    tokens = row.ids[row.prompt_tokens :].copy()
    return top_k_row(tokens, ids.numpy().astype("int32"), found.numpy())


def _train(spec: Path, out: Path) -> int:
    """Bytes of memory at the peak of the trainer's process."""
    words = [sys.executable, "-m", "trainer", "train", "--spec", str(spec), "--out", str(out)]
    told = out.with_suffix(".log")
    with told.open("w") as log:
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{out.name} failed; see {told}")
    return usage.ru_maxrss * 1024


def _share(found: Measurement) -> float:
    return found.skills[SKILL].share


def _write(path: Path, text: str) -> None:
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
    given = parser.parse_args()
    size = SMOKE if given.smoke else FULL
    study(given.out, Size(**{**vars(size), "seeds": given.seeds or size.seeds}))


if __name__ == "__main__":
    main()
