"""A tiny chain's inputs on disk: a random Llama, a dataset, questions."""

import json
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from prompts.dataset import assemble, write_chunk
from prompts.record import Record
from tests.trainer.conftest import make_model, make_records, save_model

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "num_hidden_layers": 3}


def make_llama(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """Three layers of width 64 with heads of 32, the least that vLLM takes on a CPU."""
    return make_model(seed, **{**SHAPE, **changes})


def write_model(directory: Path, **changes: object) -> Path:
    """That model in bfloat16, with its tokenizer."""
    return save_model(directory, make_llama(**changes).to(torch.bfloat16))


def write_dataset(directory: Path, train: int = 40, validation: int = 10, cut: int = 0) -> Path:
    """Rows of two splits, as a build publishes them; the first `cut` met their token limit."""
    rows = make_records(train + validation)
    rows[:cut] = [row.model_copy(update={"finish_reason": "length"}) for row in rows[:cut]]
    held = [row.model_copy(update={"split": "validation"}) for row in rows[train:]]
    chunk = directory.parent / "chunk.parquet"
    everything: list[Record] = [*rows[:train], *held]
    write_chunk(chunk, everything)
    assemble(directory, [chunk], recipe={}, seeds=len(everything), deduplicate=False)
    return directory


def write_judged(directory: Path, verify: object, validation: int = 10, train: int = 40) -> Path:
    """Such a dataset whose rows have gold answers: the first word of an answer must be one of about
    half of all words."""
    rows = [
        row.model_copy(
            update={
                "answer": "w1",
                "gold": r"w\d*[02468]",
                "split": "train" if place < train else "validation",
            }
        )
        for place, row in enumerate(make_records(train + validation))
    ]
    build = {"kind": "cot", "name": "d", "teacher": "t", "seeds": "s", "template": "{{ q }}"}
    asked = {"answer_pattern": r"^(w\d+)", "gold_field": "a", "verify": verify}
    chunk = directory.parent / "judged.parquet"
    write_chunk(chunk, rows)
    recipe = {"kind": "build", "build": {**build, **asked}}
    assemble(directory, [chunk], recipe=recipe, seeds=len(rows), deduplicate=False)
    return directory


def write_questions(path: Path, count: int = 12) -> Path:
    """Questions of two skills; a random model has some right by chance, or none."""
    rows = [
        {
            "id": f"q{i}",
            "skill": "cot" if i % 2 else "icl",
            "prompt": [{"role": "user", "content": f"w{i} w{i + 1}"}],
            "answer": str(i % 10),
            "check": "numeric",
        }
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path
