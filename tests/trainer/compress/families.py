"""Tiny random models of each family whose layout is known."""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from tests.trainer.compress.models import VOCABULARY

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": True, "attention_bias": True}),
    "llama_untied": (LlamaConfig, {"tie_word_embeddings": False, "mlp_bias": True}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3Config, {"tie_word_embeddings": True, "head_dim": 12}),
    "mistral": (MistralConfig, {"tie_word_embeddings": False, "sliding_window": 4}),
    "gemma": (GemmaConfig, {"head_dim": 8}),
    "gemma2": (Gemma2Config, {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}),
}
FAMILIES = tuple(CONFIGS)


def make(family: str, seed: int = 0, **fields: object) -> PreTrainedModel:
    """Norms and biases are random too, so that none can be forgotten."""
    kind, own = CONFIGS[family]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(kind(**{**SHAPE, **own, **fields}))
    if family == "gemma2":
        model.set_attn_implementation("eager")  # as it is loaded: sdpa leaves its cap out
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 1 and not isinstance(module, nn.Embedding):
                    spread = 0.3 if name == "weight" else 0.2
                    parameter.add_(spread * torch.randn_like(parameter))
    return model.eval()
