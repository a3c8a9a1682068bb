"""What the quality study trains on: the demo teacher's right chains of thought, with its signal.

    python -m benchmarks.quality_data --dataset .quality/dataset [--rows 200]

tells how sure the teacher is of them: what a distribution can add to an answer.
"""

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.dataset import import_dataset
from prompts.record import Message
from prompts.signal import (
    RowSignal,
    SampledRow,
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
from trainer.methods.teacher import Teacher
from trainer.objectives import keep, tempered
from trainer.scoring import Scored, drawn, load_scorer

DEMO = Path(__file__).parent.parent / "examples/demo"
TEACHER = DEMO / "models/teacher"
TOP_K = 16
DRAWS = 12
"""A token, of the sampled signal (arXiv:2503.16870)."""
SURE = 0.99


def make_dataset(out: Path, problems: int) -> Path:
    """The teacher's right answers with its signal, a tenth of them held out; whole or not there."""
    if (out / "dataset").is_dir():
        return out / "dataset"
    model, tokenizer = load_model(TEACHER), load_tokenizer(TEACHER)
    lines = (DEMO / "data/cot.seeds.jsonl").read_text("utf-8").splitlines()[:problems]
    seeds = [json.loads(line) for line in lines]
    asked = [f"{seed['question']} Think step by step." for seed in seeds]
    prompts = render_prompts([[Message(role="user", content=one)] for one in asked], tokenizer)
    answers = answer_greedily(model, prompts, 96, 100, end_ids(model, tokenizer))
    rows = []
    for number, (seed, prompt, ids) in enumerate(zip(seeds, asked, answers.ids, strict=True)):
        said = str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        if is_right(said, seed["answer"]):
            split = "validation" if number % 10 == 0 else "train"
            rows.append(_row(seed, prompt, said, split))
    written = out / ".dataset"
    shutil.rmtree(written, ignore_errors=True)
    (out / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    import_dataset(out / "rows.jsonl", written, kind="cot")
    _record(written, model, tokenizer)
    written.rename(out / "dataset")
    return out / "dataset"


def with_draws(dataset: Path) -> Path:
    """The same rows beside, whose signal is DRAWS draws of the teacher's at each token."""
    made = dataset.with_name(f"{dataset.name}-drawn")
    if made.is_dir():
        return made
    written = dataset.with_name(".drawn")
    shutil.rmtree(written, ignore_errors=True)
    shutil.copytree(dataset, written, ignore=shutil.ignore_patterns("signal"))
    model, tokenizer = load_scorer(TEACHER), load_tokenizer(TEACHER)
    signals = (
        (row.row, _draws(model, number, row))
        for number, row in enumerate(_encoded(written, tokenizer, end_ids(model, tokenizer)))
    )
    _write(written, _header("sampled", DRAWS), signals)
    written.rename(made)
    return made


def _row(seed: dict[str, Any], prompt: str, said: str, split: str) -> dict[str, Any]:
    return {
        "id": seed["id"],
        "answer": str(seed["answer"]),
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": said}],
        "reasoning": said,
        "split": split,
    }


def is_right(said: str, gold: str) -> bool:
    """Whether a chain of thought ends with the gold number."""
    _, closing, number = said.rpartition("The answer is ")
    return bool(closing) and same_number(number.rstrip("."), gold)


def _record(dataset: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    teacher, rows = Teacher(model), _encoded(dataset, tokenizer, end_ids(model, tokenizer))
    _write(dataset, _header("top_k", TOP_K), ((row.row, _signal(teacher, row)) for row in rows))


def _encoded(
    dataset: Path, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]
) -> tuple[TokenRow, ...]:
    records = [*read_records(dataset, "train"), *read_records(dataset, "validation")]
    return encode(records, tokenizer, 512, ends).rows


def _header(kind: Literal["top_k", "sampled"], width: int) -> SignalHeader:
    return SignalHeader(
        kind=kind,
        width=width,
        teacher="demo-teacher",
        proposal_temperature=1.0 if kind == "sampled" else None,
        tokenizer_sha256=tokenizer_sha256(TEACHER),
        template_sha256=template_sha256(TEACHER),
        vocabulary=vocabulary_size(TEACHER),
    )


def _write(dataset: Path, header: SignalHeader, signals: Iterable[tuple[str, RowSignal]]) -> None:
    (dataset / "signal").mkdir(exist_ok=True)
    write_signal(dataset / "signal/teacher.signal", header, signals)


def sureness(log_p: Tensor, targets: Tensor) -> dict[str, float]:
    """Of log-probabilities [K, V] and the tokens that came [K], summed: their negative
    log-likelihood and the entropy in nats, and how many were given more than SURE."""
    given = log_p.gather(1, targets[:, None])
    return {
        "tokens": float(len(targets)),
        "nll": -float(given.sum()),
        "entropy": float(torch.special.entr(log_p.exp()).sum()),
        "sure": float((given.exp() > SURE).sum()),
    }


@torch.no_grad()
def sureness_of(dataset: Path, rows: int) -> dict[str, float]:
    """The teacher's on the first training rows: tokens, and the mean of each for a token."""
    model, tokenizer = load_model(TEACHER), load_tokenizer(TEACHER)
    records = read_records(dataset, "train")[:rows]
    teacher, sums = Teacher(model), Counter[str]()
    for row in encode(records, tokenizer, 512, end_ids(model, tokenizer)).rows:
        batch = pad([row])
        seen = teacher.look(batch)
        kept, targets = keep(seen.hidden, batch.input_ids, batch.completion_mask)
        sums.update(sureness(tempered(teacher.head.logits(kept), 1.0), targets))
    return {name: sums[name] / (1 if name == "tokens" else sums["tokens"]) for name in sums}


@torch.no_grad()
def _signal(teacher: Teacher, row: TokenRow) -> TopKRow:
    log_p = tempered(teacher.head.logits(teacher.kept(pad([row]))), 1.0)
    found, ids = log_p.topk(TOP_K)
    tokens = row.ids[row.prompt_tokens :].copy()
    return top_k_row(tokens, ids.numpy().astype("int32"), found.numpy())


def _draws(model: PreTrainedModel, number: int, row: TokenRow) -> SampledRow:
    ids = tuple(row.ids.tolist())
    (found,) = drawn(model, [Scored(ids, row.prompt_tokens, seed=number)], DRAWS)
    tokens = row.ids[row.prompt_tokens :].copy()
    return SampledRow(tokens, np.array(found.ids, np.int32), np.array(found.values, np.float32))


def main() -> None:
    """The figures, a line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality_data", description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path(".quality/dataset"))
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    for name, value in sureness_of(given.dataset, given.rows).items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
