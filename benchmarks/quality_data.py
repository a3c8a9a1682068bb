"""What the quality study trains on: the demo teacher's right chains of thought, with its signal."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
from trainer.methods.teacher import Teacher
from trainer.objectives import tempered

DEMO = Path(__file__).parent.parent / "examples/demo"
TEACHER = DEMO / "models/teacher"
TOP_K = 16


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
