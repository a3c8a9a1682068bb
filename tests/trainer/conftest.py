"""A tiny world: a word tokenizer with a chat template, a random Llama, and rows."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from prompts.record import Kind, Message, Record

WORDS = [f"w{number}" for number in range(40)] + list("0123456789") + ["The", "answer", "is", "."]
SPECIAL = ["<pad>", "<unk>", "<s>", "<end>", "<user>", "<assistant>", "<system>"]
TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{{ '<' + m.role + '>' }} {{ m.content }} {{ '<end>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_tokenizer(template: str | None = TEMPLATE, pad: str = "<pad>") -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<end>",
        unk_token="<unk>",
        pad_token=pad,
    )
    tokenizer.chat_template = template
    return tokenizer


def make_model(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()


def save_model(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None
) -> Path:
    model.save_pretrained(directory)
    (tokenizer or make_tokenizer()).save_pretrained(directory)
    return directory


def make_record(
    number: int,
    prompt: str,
    completion: str,
    kind: Kind = Kind.COT,
    **changes: Any,
) -> Record:
    fields: dict[str, Any] = {
        "id": f"r{number}",
        "kind": kind,
        "prompt": (Message(role="user", content=prompt),),
        "completion": (Message(role="assistant", content=completion),),
        "reasoning": completion if kind is Kind.COT else None,
        "split": "train",
        "teacher": "t",
        "finish_reason": "stop",
        "content_hash": hashlib.sha256(f"{prompt}{completion}".encode()).hexdigest(),
        "seed": "{}",
    }
    return Record(**{**fields, **changes})


def make_records(count: int, kind: Kind = Kind.COT) -> list[Record]:
    """Rows of several lengths: the prompt's words, doubled, then an answer."""
    rows = []
    for number in range(count):
        words = [f"w{(number * 7 + step * 3) % 40}" for step in range(2 + number % 5)]
        text = f"{' '.join(reversed(words))} The answer is {number % 10} ."
        rows.append(make_record(number, " ".join(words), text, kind))
    return rows


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def student_dir(tmp_path: Path) -> Path:
    return save_model(tmp_path / "base", make_model())
