"""Decoders with low-rank linears, one set of types for each dense family that has them."""

from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2Model,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from retort_lowrank.linear import factorize_linears


def make_types(
    family: str,
    config: type[PreTrainedConfig],
    body: type[PreTrainedModel],
    causal: type[PreTrainedModel],
) -> tuple[type[PreTrainedConfig], type[PreTrainedModel], type[PreTrainedModel]]:
    """The configuration with `ranks` (linear's name within the base model -> rank), the decoder
    whose named linears are factorized, and that with its head.

    They must be kept under their own names in this module: engines pickle configurations.
    """
    place = {"__module__": __name__}
    fields = {
        **place,
        "__doc__": f"A {family} configuration and `ranks`.",
        "__annotations__": {"ranks": dict[str, int] | None},
        "model_type": f"retort_lowrank_{family}",
        "ranks": None,
    }
    low_config = type(f"LowRank{config.__name__}", (config,), fields)

    def init_body(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        body.__init__(self, config)
        factorize_linears(self, config.ranks or {})
        self.post_init()

    def init_causal(self: PreTrainedModel, config: PreTrainedConfig) -> None:
        causal.__init__(self, config)
        factorize_linears(self.model, config.ranks or {})
        self.post_init()

    # transformers finds the parameter that takes the configuration by its annotation; vLLM checks
    # the first argument against the first annotation, so `self` must not have one.
    for init in (init_body, init_causal):
        init.__annotations__ = {"config": low_config}
    bodies = {**place, "config_class": low_config, "__init__": init_body}
    causals = {**place, "config_class": low_config, "__init__": init_causal}
    return (
        low_config,
        type(f"LowRank{body.__name__}", (body,), bodies),
        type(f"LowRank{causal.__name__}", (causal,), causals),
    )


LowRankLlamaConfig, LowRankLlamaModel, LowRankLlamaForCausalLM = make_types(
    "llama", LlamaConfig, LlamaModel, LlamaForCausalLM
)
LowRankMistralConfig, LowRankMistralModel, LowRankMistralForCausalLM = make_types(
    "mistral", MistralConfig, MistralModel, MistralForCausalLM
)
LowRankQwen2Config, LowRankQwen2Model, LowRankQwen2ForCausalLM = make_types(
    "qwen2", Qwen2Config, Qwen2Model, Qwen2ForCausalLM
)
LowRankQwen3Config, LowRankQwen3Model, LowRankQwen3ForCausalLM = make_types(
    "qwen3", Qwen3Config, Qwen3Model, Qwen3ForCausalLM
)
LowRankGemmaConfig, LowRankGemmaModel, LowRankGemmaForCausalLM = make_types(
    "gemma", GemmaConfig, GemmaModel, GemmaForCausalLM
)
LowRankGemma2Config, LowRankGemma2Model, LowRankGemma2ForCausalLM = make_types(
    "gemma2", Gemma2Config, Gemma2Model, Gemma2ForCausalLM
)
