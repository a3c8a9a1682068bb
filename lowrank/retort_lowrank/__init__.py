"""Factorized language models: importing this teaches transformers' Auto classes to load them.

A factorized model's configuration carries `ranks`, a map from a linear's name in the base model
(`layers.3.mlp.up_proj`) to its rank. Every other field is the dense architecture's own.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from retort_lowrank import families
from retort_lowrank.families import LowRankLlamaConfig, LowRankLlamaForCausalLM, LowRankLlamaModel
from retort_lowrank.linear import LowRankLinear, factorize_linears

TYPES = {
    "llama": (LowRankLlamaConfig, LowRankLlamaModel, LowRankLlamaForCausalLM),
    "mistral": (
        families.LowRankMistralConfig,
        families.LowRankMistralModel,
        families.LowRankMistralForCausalLM,
    ),
    "qwen2": (
        families.LowRankQwen2Config,
        families.LowRankQwen2Model,
        families.LowRankQwen2ForCausalLM,
    ),
    "qwen3": (
        families.LowRankQwen3Config,
        families.LowRankQwen3Model,
        families.LowRankQwen3ForCausalLM,
    ),
    "gemma": (
        families.LowRankGemmaConfig,
        families.LowRankGemmaModel,
        families.LowRankGemmaForCausalLM,
    ),
    "gemma2": (
        families.LowRankGemma2Config,
        families.LowRankGemma2Model,
        families.LowRankGemma2ForCausalLM,
    ),
}
"""Dense `model_type` -> configuration, decoder, decoder with head."""

FACTORIZED = {family: (config, causal) for family, (config, _, causal) in TYPES.items()}
"""Dense `model_type` -> its factorized configuration and model."""

for config, body, causal in TYPES.values():
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, body)
    AutoModelForCausalLM.register(config, causal)

__all__ = [
    "FACTORIZED",
    "LowRankLinear",
    "LowRankLlamaConfig",
    "LowRankLlamaForCausalLM",
    "LowRankLlamaModel",
    "factorize_linears",
]
