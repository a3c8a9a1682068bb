"""The parts of each family, found without their names."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    Phi3Config,
    PreTrainedModel,
)

from tests.trainer.compress.families import FAMILIES, SHAPE, make
from trainer.compress.anatomy import find_anatomy, has_offset
from trainer.errors import BadInput

WITH_OFFSET = ("gemma", "gemma2")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_each_family(family: str) -> None:
    model = make(family)
    found = find_anatomy(model)
    assert (found.hidden, found.depth, found.layers) == (32, 2, "model.layers")
    attention, block = found.attention, found.feed_forward
    assert (attention.query, attention.key) == ("self_attn.q_proj", "self_attn.k_proj")
    assert (attention.value, attention.output) == ("self_attn.v_proj", "self_attn.o_proj")
    assert (attention.heads, attention.groups) == (4, 2)
    assert attention.head_size == (12 if family == "qwen3" else 8)
    assert (block.gate, block.up, block.down) == ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert block.width == 40
    assert len(attention.norms) == (2 if family == "qwen3" else 0)
    assert len(found.norms) == (4 if family == "gemma2" else 2)
    assert (found.embedding, found.final_norm) == ("model.embed_tokens", "model.norm")
    assert found.tied == model.config.tie_word_embeddings
    assert has_offset(model.model.norm) == (family in WITH_OFFSET)


def test_names_and_order_decide_nothing() -> None:
    """Linears renamed and registered in another order are told apart by what they do."""
    model = make("llama", num_key_value_heads=4)
    for layer in model.model.layers:
        attention, block = layer.self_attn, layer.mlp
        attention.q_proj, attention.v_proj = attention.v_proj, attention.q_proj
        block.gate_proj, block.up_proj = block.up_proj, block.gate_proj
        forward_swapped(attention, "q_proj", "v_proj")
        forward_swapped(block, "gate_proj", "up_proj")
    found = find_anatomy(model)
    assert (found.attention.query, found.attention.value) == (
        "self_attn.v_proj",
        "self_attn.q_proj",
    )
    assert (found.feed_forward.gate, found.feed_forward.up) == ("mlp.up_proj", "mlp.gate_proj")


def forward_swapped(module: nn.Module, one: str, other: str) -> None:
    """The module computes with the two exchanged, though their names stay exchanged outside."""
    inner = module.forward

    def forward(*args: object, **kwargs: object) -> object:
        first, second = module._modules[one], module._modules[other]
        module._modules[one], module._modules[other] = second, first
        try:
            return inner(*args, **kwargs)
        finally:
            module._modules[one], module._modules[other] = first, second

    module.forward = forward  # type: ignore[method-assign]


def test_half_precision_is_probed_as_well() -> None:
    assert find_anatomy(make("gemma2").to(torch.bfloat16)) == find_anatomy(make("gemma2"))


def phi3() -> PreTrainedModel:
    fields = {name: value for name, value in SHAPE.items() if name != "initializer_range"}
    return AutoModelForCausalLM.from_config(Phi3Config(**fields))


def mixtral() -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(MixtralConfig(**SHAPE, num_local_experts=2))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (phi3, r"fused ones and several experts aren't supported; found .*qkv_proj"),
        (mixtral, "several experts"),
        (gpt2, r"(no nn\.Linear|were not all found)"),
    ],
)
def test_an_unknown_layout_is_refused_with_what_was_not_found(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match=message):
        find_anatomy(build().eval())


def test_layers_that_differ_are_refused() -> None:
    model = make("llama")
    model.model.layers[1].mlp.up_proj = nn.Linear(32, 39)
    with pytest.raises(BadInput, match=r"layers \[1\] unlike the first"):
        find_anatomy(model)
    model = make("llama")
    model.model.layers[1].extra = nn.Linear(3, 3)
    with pytest.raises(BadInput, match=r"layers\.1\.extra beside them"):
        find_anatomy(model)


def test_a_norm_that_takes_out_the_mean_is_no_rms_norm() -> None:
    model = AutoModelForCausalLM.from_config(CohereConfig(**SHAPE)).eval()
    with pytest.raises(BadInput, match="no RMS norm"):
        has_offset(model.model.norm)
