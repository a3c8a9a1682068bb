"""Factorized language models: importing this teaches transformers' Auto classes to load them.

A factorized model's configuration carries `ranks`, a map from a linear's name in the base model
(`layers.3.mlp.up_proj`) to its rank. Every other field is the dense architecture's own.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from retort_lowrank.linear import LowRankLinear, factorize_linears
from retort_lowrank.llama import LowRankLlamaConfig, LowRankLlamaForCausalLM, LowRankLlamaModel

FACTORIZED = {"llama": (LowRankLlamaConfig, LowRankLlamaForCausalLM)}
"""Dense `model_type` -> its factorized configuration and model; a new family is one line."""

AutoConfig.register(LowRankLlamaConfig.model_type, LowRankLlamaConfig)
AutoModel.register(LowRankLlamaConfig, LowRankLlamaModel)
AutoModelForCausalLM.register(LowRankLlamaConfig, LowRankLlamaForCausalLM)

__all__ = [
    "FACTORIZED",
    "LowRankLinear",
    "LowRankLlamaConfig",
    "LowRankLlamaForCausalLM",
    "LowRankLlamaModel",
    "factorize_linears",
]
