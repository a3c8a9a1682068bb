"""Which layers adapters are put into, and what is refused or told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedModel

from tests.trainer.conftest import SPECIAL, WORDS, make_model, make_records, save_model
from tests.trainer.methods.made import spec_of
from tests.trainer.runs import Heard
from tests.trainer.test_refusals import gpt2
from trainer.adapters import add_lora
from trainer.errors import BadInput
from trainer.events import silent
from trainer.preparation import prepare
from trainer.spec import Lora

LLAMA_LINEARS = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


def phi3() -> PreTrainedModel:
    """Queries, keys and values are one linear."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    model: PreTrainedModel = Phi3ForCausalLM(config).eval()
    return model


def adapted(model: PreTrainedModel) -> set[str]:
    """Last names of the layers that have adapters."""
    return {name.split(".lora_")[0].split(".")[-1] for name, p in trained(model).items() if p}


def trained(model: PreTrainedModel) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        (("embed_tokens",), "embed_tokens"),
        (("up_proj", "embed_tokens"), "embed_tokens"),
        (("lm_head",), "lm_head"),
        (("q_proj", "norm"), "norm"),
        (("self_attn",), "self_attn"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_adapters_of_anything_but_a_linear_of_the_body_are_refused(
    layers: tuple[str, ...], named: str, tied: bool
) -> None:
    """Embeddings that share their weight with the head would change it, too, once merged."""
    model = make_model(tie_word_embeddings=tied)
    with pytest.raises(BadInput, match=rf"lora\.layers: {named} is no linear of the body") as told:
        add_lora(model, Lora(layers=layers), silent)
    assert LLAMA_LINEARS in told.value.detail


@pytest.mark.parametrize(
    "layers", [("q_proj", "qproj"), ("all", "qproj"), ("qproj",), ("q_proj", "proj")]
)
def test_a_name_that_is_no_layers_is_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match=r"lora\.layers: the student has no ") as told:
        add_lora(make_model(), Lora(layers=layers), silent)
    assert layers[-1] in told.value.title
    assert LLAMA_LINEARS in told.value.detail


def test_what_the_default_adapts_in_part_is_told(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "sequence_level", lora={})
    save_model(tmp_path / "student", phi3())
    heard = Heard()
    run = prepare(spec, make_records(6), make_records(4), heard)
    (told,) = (fields["detail"] for fields in heard.of("warning"))
    assert told == (
        "lora adapts o_proj alone: the student has no q_proj, k_proj, v_proj. Its linears are "
        "down_proj, gate_up_proj, o_proj, qkv_proj: name some in lora.layers, or 'all'."
    )
    assert adapted(run.model) == {"o_proj"}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft's own, about what it mends itself
@pytest.mark.parametrize(
    ("model", "layers", "linears"),
    [
        (make_model(), None, {"q_proj", "k_proj", "v_proj", "o_proj"}),
        (make_model(), ("mlp.up_proj", "layers.0.self_attn.q_proj"), {"up_proj", "q_proj"}),
        (phi3(), ("qkv_proj", "o_proj"), {"qkv_proj", "o_proj"}),
        (phi3(), ("all",), {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        (gpt2(64), ("attn.c_proj", "c_attn"), {"c_attn", "c_proj"}),
    ],
)
def test_layers_that_fit_are_adapted_without_a_word(
    model: Any, layers: tuple[str, ...] | None, linears: set[str]
) -> None:
    heard = Heard()
    add_lora(model, Lora() if layers is None else Lora(layers=layers), heard)
    assert adapted(model) == linears
    assert heard == []


def test_a_default_that_fits_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(BadInput, match="no q_proj, k_proj, v_proj, o_proj") as told:
        add_lora(gpt2(64), Lora(), silent)
    assert "c_attn, c_fc, c_proj" in told.value.detail
