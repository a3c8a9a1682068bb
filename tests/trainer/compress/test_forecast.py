"""What is expected of each stage, against what it makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.compress.families import FAMILIES, make
from tests.trainer.compress.models import token_rows
from tests.trainer.compress.test_anatomy import phi3
from trainer.compress import magnitude, svd, width
from trainer.compress.engines import obstacles
from trainer.compress.expected import describe
from trainer.compress.forecast import forecast
from trainer.errors import BadInput
from trainer.spec import CompressSpec, MagnitudePrune, SvdFactorize, WidthPrune

WIDE = {"hidden_size": 128, "intermediate_size": 160, "head_dim": 32}
FOUR = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 16}


def spec(*stages: dict[str, object]) -> CompressSpec:
    return CompressSpec(stages=stages)


@pytest.mark.parametrize("family", ["llama", "llama_untied", "qwen2", "qwen3", "gemma2"])
def test_parameters_of_a_narrower_model(family: str) -> None:
    fields = {"feed_forward": 24, "key_value_groups": 1, "heads_per_group": 1, "hidden": 20}
    model = make(family)
    (found,) = forecast(spec({"kind": "width", **fields}), model)
    made = width.apply(WidthPrune(kind="width", **fields), model, token_rows(2)).model
    assert found.expected.parameters == sum(p.numel() for p in made.parameters())
    assert describe(model).parameters == sum(p.numel() for p in model.parameters())


def test_parameters_of_factors_and_an_upper_bound_where_the_data_decide() -> None:
    model = make("qwen2")
    stage = {"kind": "svd", "parameter_ratio": 0.5}
    (found,) = forecast(spec(stage), model)
    made = svd.apply(SvdFactorize(**stage), model, token_rows(2)).model
    assert found.expected.parameters == sum(p.numel() for p in made.parameters())
    searched = {"kind": "svd", "ranks": "by_loss", "max_relative_error": 0.3}
    (open_ended,) = forecast(spec(searched), model)
    assert "at most" in open_ended.tell(0, "svd")
    assert "at most" not in found.tell(0, "svd")


def test_a_qwen2_without_some_heads_needs_the_transformers_backend() -> None:
    stage = {"kind": "width", "key_value_groups": 1}
    for family, wanted in (("qwen2", True), ("llama", False)):
        (found,) = forecast(spec(stage), make(family))
        assert ("runs it as transformers does" in "; ".join(found.notes)) is wanted


@pytest.mark.parametrize(
    ("fields", "stages", "why"),
    [
        ({}, [{"kind": "ptq", "scheme": "W8A16", "algorithm": "rtn"}], "no kernel for 8-bit"),
        ({}, [{"kind": "ptq", "scheme": "W8A8", "algorithm": "rtn"}], None),
        ({"dtype": torch.float32}, [FOUR], "16-bit models alone"),
        ({}, [FOUR], None),
        ({"intermediate_size": 80}, [FOUR], "multiples of 32, not the 80"),
        ({}, [{"kind": "svd", "parameter_ratio": 0.75, "rank_multiple": 16}, FOUR], "not the 48"),
        ({}, [{"kind": "svd", "parameter_ratio": 0.75, "rank_multiple": 32}, FOUR], None),
        ({"head_dim": 16}, [{"kind": "depth"}], "head sizes"),
        ({"head_dim": 144}, [{"kind": "depth"}], "head sizes"),
        ({"head_dim": 48}, [{"kind": "depth"}], None),
    ],
)
def test_what_the_cpu_build_does_not_load_is_told(
    fields: dict[str, Any], stages: list[dict[str, object]], why: str | None
) -> None:
    """The build that the tests really load these in: test_engines.py."""
    dtype = fields.pop("dtype", torch.bfloat16)
    model = make("llama", **{**WIDE, **fields}).to(dtype)
    last = forecast(spec(*stages), model)[-1]
    said = "; ".join(last.notes)
    assert ("transformers and vLLM load it" in said) is (why is None)
    if why is not None:
        assert why in said
        assert why in "; ".join(obstacles(last.expected, "vllm-cpu"))
    assert obstacles(last.expected, "vllm") == ()
    elsewhere = "; ".join(forecast(spec(*stages), model, "vllm")[-1].notes)
    assert "vLLM's GPU build should: that was not tried" in elsewhere
    assert "CPU build" not in elsewhere


def test_rescaling_needs_a_layout_that_is_known() -> None:
    model = make("llama")
    model.model.layers[1].extra = nn.Linear(3, 3)
    asked = {"kind": "ptq", "scheme": "W8A8"}
    with pytest.raises(BadInput, match="parts of LlamaForCausalLM were not all found"):
        forecast(spec({**asked, "algorithm": "smoothquant"}), model)
    forecast(spec({**asked, "algorithm": "gptq"}), model)


@pytest.mark.parametrize(
    ("fields", "blamed", "nearest"),
    [
        ({"key_value_groups": 3}, "key_value_groups", "key_value_groups: 2 or key_value_groups: 4"),
        ({"feed_forward": 24, "hidden": 30}, "hidden", "hidden: 28 or hidden: 32"),
        (
            {"key_value_groups": 3, "hidden": 20},
            "key_value_groups, hidden",
            "key_value_groups: 2 or key_value_groups: 4 or hidden: 18 or hidden: 21",
        ),
    ],
)
def test_a_width_that_the_heads_do_not_divide_is_refused_where_its_configuration_does(
    fields: dict[str, int], blamed: str, nearest: str, tmp_path: Path
) -> None:
    """Their models run with it, but could be neither saved nor loaded."""
    for family in FAMILIES:
        model = make(family, num_attention_heads=4, num_key_value_heads=4)
        asked = spec({"kind": "depth"}, {"kind": "width", **fields})
        if family in ("llama", "llama_untied", "gemma2"):
            with pytest.raises(BadInput) as refused:
                forecast(asked, model)
            assert refused.value.title.startswith(
                f"stages[1].{blamed}: a {model.config.model_type}"
            )
            assert refused.value.detail.endswith(f"The nearest that fit: {nearest}.")
            continue
        forecast(asked, model)
        stage = WidthPrune(kind="width", **fields)
        width.apply(stage, model, token_rows(2)).model.save_pretrained(tmp_path / family)


def test_what_a_stage_could_not_do_is_named_with_its_path() -> None:
    for stages, message in (
        ([{"kind": "depth", "layers": 2}], r"stages\[0\].layers"),
        (
            [{"kind": "width", "hidden": 20}, {"kind": "width", "hidden": 24}],
            r"stages\[1\].hidden is 24, but the model has 20",
        ),
        (
            [{"kind": "width", "hidden": 18}, {"kind": "wanda", "pattern": "2:4"}],
            r"stages\[1\].pattern: 2:4 doesn't fit the 18 inputs of",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            forecast(spec(*stages), make("gemma"))
    with pytest.raises(BadInput, match=r"stages\[0\]: a phi3 model can't be factorized"):
        forecast(spec({"kind": "svd"}), phi3())


MASK = {"kind": "magnitude"}
ADAPTERS = {"kind": "qaf", "method": "qlora", "rank": 4, "group_size": 8}
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVERYTHING = {"kind": "svd", "parameter_ratio": 0.75, "rank_multiple": 8, "targets": ALL}


def test_a_mask_is_gone_where_its_linears_are_factorized() -> None:
    model = make("llama", **WIDE)
    made = forecast(spec(MASK, EVERYTHING, ADAPTERS), model)
    assert [one.expected.sparse for one in made] == [True, False, False]
    assert "the zeros that a mask left are filled in all linears" in made[1].notes
    assert not any("filled" in note for one in (made[0], made[2]) for note in one.notes)
    with pytest.raises(BadInput, match="would fill the zeros that a mask left"):
        forecast(spec(MASK, {**EVERYTHING, "targets": ("q_proj", "up_proj")}, ADAPTERS), model)
    with pytest.raises(BadInput, match="would fill the zeros that a mask left"):
        forecast(spec(EVERYTHING, MASK, ADAPTERS), model)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.0)])
def test_a_first_model_that_is_masked_already_is_planned_as_one(shares: tuple[float, ...]) -> None:
    """By an earlier run, in one of its layers or in all of them."""
    model, before = make("llama", **WIDE), make("llama", **WIDE)
    before.model.layers[0].mlp.up_proj.weight.data[0, 0] = 0.0  # rounding makes a few
    magnitude.apply(MagnitudePrune(**MASK, layer_sparsities=shares), model, ())
    with pytest.raises(BadInput, match="would fill the zeros that a mask left"):
        forecast(spec(ADAPTERS), model)
    (filled,) = forecast(spec(EVERYTHING), model)
    assert "the zeros that a mask left are filled in all linears" in filled.notes
    (kept,) = forecast(spec({"kind": "depth"}), model)
    assert "no engine is faster by its zeros" in kept.notes
    forecast(spec(ADAPTERS), before)
    assert not describe(before).sparse


def test_folding_fills_the_zeros_of_attention_alone() -> None:
    _, folded = forecast(spec(MASK, {"kind": "tensor"}), make("llama"))
    (said,) = (note for note in folded.notes if "filled" in note)
    assert "self_attn.q_proj" in said
    assert "mlp" not in said
    assert folded.expected.sparse
    (alone,) = forecast(spec({"kind": "tensor"}), make("llama"))
    assert not any("filled" in note for note in alone.notes)
