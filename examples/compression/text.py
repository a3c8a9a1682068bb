"""A byte-level model and plain text cut into rows, as the trainer takes them."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prompts.dataset import import_dataset

SPECIAL = ("<pad>", "<end>", "<text>", "<goes-on>")
GIVEN, LEARNT = 32, 96
"""Characters of a row that are given, and that are learnt."""
VALIDATION_EVERY = 12
STORIES = Path("examples/demo/data/cot.seeds.jsonl")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<text>{{ m.content }}"
    "{% else %}<goes-on>{{ m.content }}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<goes-on>{% endif %}"
)


def read_text(path: Path | None) -> str:
    """A file's text; without one, the demo's stories, one after another."""
    if path is not None:
        return path.read_text("utf-8")
    lines = STORIES.read_text("utf-8").splitlines()
    return "\n".join(json.loads(line)["question"] for line in lines)


def write_dataset(text: str, directory: Path, rows: int) -> Path:
    """Rows of neighbouring characters, every twelfth for validation; what is there stays."""
    if (directory / "manifest.json").is_file():
        return directory
    width = GIVEN + LEARNT
    starts = range(0, len(text) - width, max(width, (len(text) - width) // rows))
    source = directory.with_suffix(".jsonl")
    source.parent.mkdir(parents=True, exist_ok=True)
    with source.open("w", encoding="utf-8") as file:
        for number, start in enumerate(starts):
            row = {
                "id": f"r{number}",
                "prompt": text[start : start + GIVEN],
                "completion": text[start + GIVEN : start + width],
                "split": "train" if (number + 1) % VALIDATION_EVERY else "validation",
            }
            file.write(json.dumps(row) + "\n")
    import_dataset(source, directory, kind="if")
    return directory


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and four more."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_model(directory: Path, width: int = 128, layers: int = 3) -> Path:
    """A random Llama of that width in heads of 32, with its tokenizer; what is there stays."""
    if (directory / "config.json").is_file():
        return directory
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 11 // 4 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=max(1, width // 64),
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
