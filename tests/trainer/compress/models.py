"""Tiny models for tests, random but seeded."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.compress.size import QUANTIZATION
from trainer.data import TokenRow

VOCABULARY = 48


def tiny_llama(layers: int = 3, seed: int = 0, **fields: object) -> LlamaForCausalLM:
    """A Llama of width 64 with two heads of 32, tied embeddings and large random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
        **fields,
    )
    return LlamaForCausalLM(config).eval()


def token_rows(count: int = 12, seed: int = 0) -> list[TokenRow]:
    """Rows of 6 to 20 random tokens, the first three of each given."""
    random = np.random.default_rng(seed)
    lengths = random.integers(6, 21, size=count)
    return [
        TokenRow(f"r{i}", random.integers(4, VOCABULARY, size=n).astype(np.int32), 3)
        for i, n in enumerate(lengths)
    ]


def logits(model: torch.nn.Module, seed: int = 1) -> torch.Tensor:
    """[2, 9, V] of two fixed sentences."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (2, 9), generator=generator)
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits.float()


def counted(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters and those not 0, scales and shapes of packed weights left out."""
    kept = [p for name, p in model.named_parameters() if not name.endswith(QUANTIZATION)]
    return sum(p.numel() for p in kept), sum(int(p.count_nonzero()) for p in kept)


def saved(model: LlamaForCausalLM, path: Path) -> Path:
    """The model as a directory."""
    model.save_pretrained(path)
    return path
