"""A random model that is mostly weights, and what compression makes of it, as directories."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from examples.compression.text import SPECIAL, make_tokenizer
from trainer.compress.making import STAGES
from trainer.compress.moments import collect
from trainer.data import TokenRow
from trainer.loading import load_model, load_tokenizer, weight_files
from trainer.spec import StageSpec

DENSE, FACTORS, PACKED_FACTORS = "dense", "svd", "svd-W4A16"
BYTES = 256
"""Tokens that are neither of SPECIAL: what prompts are drawn from."""
GROUP = 32
"""Of 4-bit weights, and what ranks are multiples of."""
ROWS, ROW_TOKENS = 4, 64
"""Random rows for stages that look at activations: what they choose doesn't matter here."""
KEY_VALUE_GROUPS = 4


@dataclass(frozen=True)
class Size:
    """Of a Llama whose feed-forward is four times as wide; all in bf16."""

    width: int
    layers: int
    heads: int

    @property
    def stages(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Name -> the model it is made from, and the stage that makes it."""
        four = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": GROUP}
        factors = {"parameter_ratio": 0.5, "rank_multiple": GROUP, "scaling": "none"}
        units = {"feed_forward": 2 * self.width, "key_value_groups": KEY_VALUE_GROUPS // 2}
        return {
            FACTORS: (DENSE, {"kind": "svd", **factors}),
            PACKED_FACTORS: (FACTORS, four),
            "W4A16": (DENSE, four),
            "W8A8": (DENSE, {"kind": "ptq", "scheme": "W8A8", "algorithm": "rtn"}),
            "depth": (DENSE, {"kind": "depth", "layers": self.layers // 2}),
            "width": (DENSE, {"kind": "width", **units}),
        }


def make_models(place: Path, size: Size) -> dict[str, Path]:
    """Name -> directory of the dense model and of each of its stages, the dense one first."""
    made = {DENSE: write_dense(place / DENSE, size)}
    for name, (source, stage) in size.stages.items():
        made[name] = _apply(stage, made[source], place / name)
    return made


def write_dense(directory: Path, size: Size) -> Path:
    """The random Llama, with a byte-level tokenizer."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=KEY_VALUE_GROUPS,
        head_dim=size.width // size.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,  # so that each stored weight is read for each token
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def weight_bytes(directory: Path) -> int:
    """Of a model's files: with a tied head, what decoding a token reads."""
    return sum(path.stat().st_size for path in weight_files(directory))


def _apply(asked: Mapping[str, Any], source: Path, directory: Path) -> Path:
    """The stage alone: a chain would measure what it makes, which takes longer than making it."""
    stage: StageSpec = TypeAdapter(StageSpec).validate_python(asked)
    outcome = STAGES[stage.kind](stage, load_model(source), _rows(), collect)
    (outcome.save or outcome.model.save_pretrained)(directory)
    load_tokenizer(source).save_pretrained(directory)
    return directory


def _rows() -> list[TokenRow]:
    random = np.random.default_rng(0)
    low, high = len(SPECIAL), len(SPECIAL) + BYTES
    drawn = random.integers(low, high, (ROWS, ROW_TOKENS)).astype(np.int32)
    return [TokenRow(f"r{number}", ids, 8) for number, ids in enumerate(drawn)]
