"""The factorized model type: saved and loaded as any other."""

import inspect
import json
import pickle
import warnings
from pathlib import Path

import pytest
import retort_lowrank
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "initializer_range": 0.15,
}
RANKS = {"layers.0.self_attn.q_proj": 5, "layers.1.mlp.up_proj": 7}
IDS = torch.arange(4, 14)[None]


def make(**changes: object) -> retort_lowrank.LowRankLlamaForCausalLM:
    torch.manual_seed(0)
    config = retort_lowrank.LowRankLlamaConfig(**{**SHAPE, "ranks": RANKS, **changes})
    return retort_lowrank.LowRankLlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_round_trip_changes_nothing(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    make(tie_word_embeddings=tied).to(dtype).save_pretrained(tmp_path / "made")
    # Loaded rather than made: `to` narrows the rotary buffer too, which loading keeps in fp32.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made", dtype="auto")
    model.save_pretrained(tmp_path / "saved")
    loaded, found = AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", dtype="auto", output_loading_info=True
    )
    assert not any(found.values()), found
    assert type(loaded) is type(model)
    assert loaded.dtype == dtype
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_the_directory_names_no_code(tmp_path: Path) -> None:
    """Neither auto_map nor Python files: nothing that asks for trust_remote_code."""
    make().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["model_type"] == "retort_lowrank_llama"
    assert config["ranks"] == RANKS
    assert "auto_map" not in config
    assert not list(tmp_path.glob("*.py"))


def test_auto_classes_know_the_type(tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), retort_lowrank.LowRankLlamaConfig)
    body = AutoModel.from_pretrained(tmp_path)
    assert isinstance(body, retort_lowrank.LowRankLlamaModel)
    assert torch.equal(body(IDS).last_hidden_state, model.model(IDS).last_hidden_state)


def test_without_ranks_it_is_the_dense_model() -> None:
    torch.manual_seed(0)
    dense = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    same = make(ranks={})
    same.load_state_dict(dense.state_dict())
    assert torch.equal(same(IDS).logits, dense(IDS).logits)


def test_factors_multiply_in_the_right_order() -> None:
    linear = retort_lowrank.LowRankLinear(6, 4, 2, bias=True)
    x = torch.randn(3, 6)
    expected = x @ (linear.left.weight @ linear.right.weight).T + linear.left.bias
    assert torch.allclose(linear(x), expected, atol=1e-6)


def test_a_name_that_is_no_linear_is_refused() -> None:
    with pytest.raises(ValueError, match="gone_proj"):
        make(ranks={"layers.0.mlp.gone_proj": 3})


def test_it_generates_without_warnings() -> None:
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert out.shape[1] > IDS.shape[1]


@pytest.mark.parametrize("family", list(retort_lowrank.FACTORIZED))
def test_engines_find_the_configuration_by_its_annotation(family: str) -> None:
    """vLLM wraps these classes and looks for the parameter of the configuration's type, in the
    order of the annotations: `self` must have none."""
    for made in retort_lowrank.TYPES[family][1:]:
        assert list(made.__init__.__annotations__) == ["config"]
        annotation = inspect.signature(made.__init__).parameters["config"].annotation
        assert annotation is retort_lowrank.TYPES[family][0]
        assert pickle.loads(pickle.dumps(annotation)) is annotation
