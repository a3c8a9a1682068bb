"""The two models of the demo: their shapes, and their directories."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

Role = Literal["teacher", "student-base"]
ROLES: tuple[Role, ...] = ("teacher", "student-base")
MODELS = Path(__file__).parent / "models"
CONTEXT = 1024

HEAD_DIM = 32  # the least that vLLM's attention takes on a CPU


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama; widths divide by 128, the group size of four-bit quantizers."""

    width: int
    inner_width: int
    layers: int
    heads: int
    key_value_heads: int


SHAPES: dict[Role, Shape] = {
    "teacher": Shape(width=256, inner_width=768, layers=4, heads=8, key_value_heads=4),
    "student-base": Shape(width=128, inner_width=384, layers=4, heads=4, key_value_heads=2),
}


def make_model(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A freshly initialised Llama in float32 with tied embeddings."""
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=HEAD_DIM,
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write `model` as bfloat16 safetensors with its tokenizer; files appear one by one, whole."""
    staging = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.bfloat16()
    half.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    half.save_pretrained(staging)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(staging)
    _make_portable(staging / "tokenizer_config.json")
    directory.mkdir(parents=True, exist_ok=True)
    for path in staging.iterdir():
        path.chmod(0o644)
        os.replace(path, directory / path.name)
    staging.rmdir()


def _make_portable(path: Path) -> None:
    """Name the class that every version of transformers knows; tokenizer.json has the rest."""
    config = json.loads(path.read_text())
    config.pop("extra_special_tokens", None)
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n")
