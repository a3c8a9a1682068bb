"""Llama with low-rank linears."""

from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from retort_lowrank.linear import factorize_linears


class LowRankLlamaConfig(LlamaConfig):
    """A Llama configuration and `ranks`: linear's name within the base model -> rank."""

    model_type = "retort_lowrank_llama"

    ranks: dict[str, int] | None = None


class LowRankLlamaModel(LlamaModel):
    """The decoder; the linears that the configuration names are factorized."""

    config_class = LowRankLlamaConfig

    def __init__(self, config: LowRankLlamaConfig) -> None:
        super().__init__(config)
        factorize_linears(self, config.ranks or {})
        self.post_init()  # type: ignore[no-untyped-call]


class LowRankLlamaForCausalLM(LlamaForCausalLM):
    """The decoder with a language-model head."""

    config_class = LowRankLlamaConfig

    def __init__(self, config: LowRankLlamaConfig) -> None:
        super().__init__(config)  # type: ignore[no-untyped-call]
        factorize_linears(self.model, config.ranks or {})
        self.post_init()  # type: ignore[no-untyped-call]
