"""Depth pruning against the model with that layer skipped."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from tests.trainer.compress.families import FAMILIES, make
from tests.trainer.compress.models import logits, saved, tiny_llama, token_rows
from trainer.compress import depth, svd
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.spec import DepthPrune, SvdFactorize

WINDOWS: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
}
"""Of families whose layers may be of two kinds, but aren't as they come."""


def three_layers(family: str, windows: bool = False) -> PreTrainedModel:
    """Of a family, whose layers differ in their attention where the family has that."""
    fields = WINDOWS.get(family, {}) if windows else {}
    return make(family, num_hidden_layers=3, **fields)


CASES = [*((family, False) for family in FAMILIES), *((family, True) for family in WINDOWS)]


@pytest.mark.parametrize(("family", "windows"), CASES)
def test_removing_nothing_changes_nothing(family: str, windows: bool) -> None:
    model = three_layers(family, windows)
    before = model.config.to_dict()
    depth.remove_layers(model, [])
    assert torch.equal(logits(model), logits(three_layers(family, windows)))
    assert model.config.to_dict() == before


@pytest.mark.parametrize("removed", [[0], [1], [2], [0, 2], [1, 2]])
@pytest.mark.parametrize(("family", "windows"), CASES)
def test_removing_layers_equals_skipping_them(
    family: str, windows: bool, removed: list[int], tmp_path: Path
) -> None:
    skipping, pruned = three_layers(family, windows), three_layers(family, windows)
    for index in removed:
        skipping.model.layers[index].forward = lambda hidden, *args, **kwargs: hidden
    depth.remove_layers(pruned, removed)
    assert torch.allclose(logits(pruned), logits(skipping), atol=1e-4)
    assert not torch.allclose(logits(pruned), logits(three_layers(family, windows)), atol=1e-2)
    reloaded = load_model(saved(pruned, tmp_path / "m"))
    assert torch.equal(logits(reloaded), logits(pruned))
    assert reloaded.config.num_hidden_layers == 3 - len(removed)
    assert type(reloaded) is type(skipping)


def test_the_first_window_stays_where_it_was() -> None:
    """vLLM goes by `max_window_layers` too: a mixture that it says nothing of runs without one."""
    model = three_layers("qwen3", windows=True)
    depth.remove_layers(model, [0])
    assert model.config.layer_types == ["full_attention", "sliding_attention"]
    assert model.config.max_window_layers == 1
    model = three_layers("qwen3", windows=True)
    depth.remove_layers(model, [2])
    assert model.config.max_window_layers == 2


def test_generation_with_a_cache_goes_on_working() -> None:
    """layer_idx addresses the cache: with stale numbers this fails or answers otherwise."""
    model = tiny_llama()
    depth.remove_layers(model, [0])
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    ids = torch.tensor([[5, 6, 7]])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


def test_block_influence_is_one_minus_mean_cosine() -> None:
    model, rows = tiny_llama(), token_rows(5)
    cosines: list[list[torch.Tensor]] = [[], [], []]
    for row in rows:  # one at a time: no padding at all
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        with torch.inference_mode():
            before = model.model.embed_tokens(ids)
            positions = torch.arange(ids.shape[1])[None]
            rotary = model.model.rotary_emb(before, positions)
            for index, layer in enumerate(model.model.layers):
                after = layer(before, position_embeddings=rotary, position_ids=positions)
                cosines[index].append(F.cosine_similarity(before, after, dim=-1)[0])
                before = after
    expected = [float(1 - torch.cat(each).mean()) for each in cosines]
    assert depth.block_influence(model, rows) == pytest.approx(expected, abs=1e-5)


def test_perplexity_is_that_of_the_model_without_the_layer() -> None:
    """Against models whose layer is really gone, one row at a time without padding."""
    rows = token_rows(5)
    expected = []
    for removed in range(3):
        model = tiny_llama()
        depth.remove_layers(model, [removed])
        total = tokens = 0.0
        for row in rows:
            ids = torch.from_numpy(row.ids.astype("int64"))[None]
            with torch.inference_mode():
                predicted = model(ids).logits[0, :-1].log_softmax(-1)
            total -= float(predicted.gather(1, ids[0, 1:, None])[row.prompt_tokens - 1 :].sum())
            tokens += row.completion_tokens
        expected.append(total / tokens)
    model = tiny_llama()
    before = logits(model)
    assert depth.log_perplexity_without(model, rows) == pytest.approx(expected, rel=1e-4)
    assert torch.equal(logits(model), before)


def test_the_layer_without_which_perplexity_is_lowest_goes() -> None:
    stage = DepthPrune(kind="depth", importance="perplexity")
    outcome = depth.apply(stage, tiny_llama(), token_rows())
    scores = outcome.details["log_perplexity"]
    assert outcome.details["removed_layers"] == [scores.index(min(scores))]


def test_a_perplexity_beyond_any_number_ranks_layers_too() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.mul_(3e4)
    outcome = depth.apply(DepthPrune(kind="depth", importance="perplexity"), model, token_rows())
    scores = outcome.details["log_perplexity"]
    assert min(scores) > math.log(1e308)
    assert outcome.details["removed_layers"] == [scores.index(min(scores))]


def test_the_least_influential_layer_goes_first() -> None:
    model = tiny_llama()
    with torch.no_grad():  # layer 1 then adds next to nothing to what it is given
        model.model.layers[1].self_attn.o_proj.weight.mul_(1e-4)
        model.model.layers[1].mlp.down_proj.weight.mul_(1e-4)
    outcome = depth.apply(DepthPrune(kind="depth", layers=1), model, token_rows())
    assert outcome.details["removed_layers"] == [1]
    again = depth.apply(DepthPrune(kind="depth", layers=1), model, token_rows())
    assert len(again.model.model.layers) == 1


@pytest.mark.parametrize("importance", ["block_influence", "perplexity"])
def test_activations_that_are_not_finite_rank_nothing(importance: str) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(BadInput, match="are not finite"):
        depth.apply(DepthPrune(kind="depth", importance=importance), model, token_rows())


def test_removing_all_layers_is_refused() -> None:
    with pytest.raises(BadInput, match="3 of 3 layers"):
        depth.apply(DepthPrune(kind="depth", layers=3), tiny_llama(), token_rows())


def test_per_layer_fields_follow_the_layers() -> None:
    model = tiny_llama()
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    depth.remove_layers(model, [0])
    assert model.config.layer_types == ["sliding_attention", "full_attention"]


def test_a_factorized_model_keeps_its_ranks(tmp_path: Path) -> None:
    factorized = svd.apply(SvdFactorize(kind="svd"), tiny_llama(), token_rows()).model
    factorized.config.ranks = dict(factorized.config.ranks)
    depth.remove_layers(factorized, [0])
    assert {name.split(".")[1] for name in factorized.config.ranks} == {"0", "1"}
    reloaded = load_model(saved(factorized, tmp_path / "m"))
    assert torch.equal(logits(reloaded), logits(factorized))
