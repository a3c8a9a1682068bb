"""Structured pruning against the same model with those units masked to zero."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel

from tests.trainer.compress.families import FAMILIES, make
from tests.trainer.compress.models import logits, saved, token_rows
from trainer.compress import width
from trainer.compress.anatomy import find_anatomy
from trainer.compress.cutting import Kept, cut
from trainer.compress.importance import by_activation, by_taylor, weight_salience
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.spec import WidthPrune

ALL = {"feed_forward": 24, "key_value_groups": 1, "heads_per_group": 1, "hidden": 20}


def prune(model: PreTrainedModel, **fields: Any) -> width.Outcome:
    return width.apply(WidthPrune(kind="width", **fields), model, token_rows(4))


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_changes_nothing(family: str) -> None:
    model = make(family)
    fields = {"feed_forward": 40, "key_value_groups": 2, "heads_per_group": 2, "hidden": 32}
    assert torch.equal(logits(prune(model, **fields).model), logits(model))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [*({name: size} for name, size in ALL.items()), ALL])
def test_a_prune_equals_the_model_with_those_units_masked(
    family: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    model = make(family)
    anatomy = find_anatomy(model)
    importance = by_activation(model, anatomy, token_rows(4))
    kept = width.choose(WidthPrune(kind="width", **sizes), anatomy, importance)
    made = cut(model, anatomy, kept)
    mask(model, kept)
    assert torch.allclose(logits(made), logits(model), atol=1e-4)
    assert not torch.allclose(logits(made), logits(make(family)), atol=1e-2)
    loaded = load_model(saved(made, tmp_path / "m"))
    assert torch.equal(logits(loaded), logits(made))
    assert type(loaded) is type(model)


@torch.no_grad()
def mask(model: PreTrainedModel, kept: Kept) -> None:
    """Written for the names of these families, apart from the code under test."""

    def zero_columns(linear: nn.Module, stay: torch.Tensor) -> None:
        gone = torch.ones(linear.weight.shape[1], dtype=torch.bool)
        gone[stay] = False
        linear.weight[:, gone] = 0

    def zero_rows(linear: nn.Module, stay: torch.Tensor) -> None:
        gone = torch.ones(linear.weight.shape[0], dtype=torch.bool)
        gone[stay] = False
        linear.weight[gone] = 0
        if linear.bias is not None:
            linear.bias[gone] = 0

    size = model.model.layers[0].self_attn.head_dim
    for index, layer in enumerate(model.model.layers):
        zero_columns(layer.mlp.down_proj, kept.feed_forward[index])
        heads = (kept.heads[index][:, None] * size + torch.arange(size)).flatten()
        zero_columns(layer.self_attn.o_proj, heads)
        zero_rows(layer.mlp.down_proj, kept.hidden)
        zero_rows(layer.self_attn.o_proj, kept.hidden)
    embedding = model.model.embed_tokens.weight
    gone = torch.ones(embedding.shape[1], dtype=torch.bool)
    gone[kept.hidden] = False
    if not model.config.tie_word_embeddings:
        model.lm_head.weight[:, gone] = 0
    embedding[:, gone] = 0


def test_the_units_of_largest_activation_stay() -> None:
    model = make("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[7:] *= 1e-3
            layer.self_attn.v_proj.weight[:8] *= 1e-3
            layer.self_attn.v_proj.bias[:8] = 0
    outcome = prune(model, feed_forward=7, key_value_groups=1)
    weight = outcome.model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(weight, model.model.layers[1].mlp.up_proj.weight[:7])
    assert outcome.details["kept_heads"] == [[2, 3], [2, 3]]
    assert outcome.details["feed_forward"] == [40, 7]


def test_activations_are_means_over_real_tokens() -> None:
    model, rows = make("llama"), token_rows(3)
    anatomy = find_anatomy(model)
    sums, tokens = torch.zeros(40, dtype=torch.float64), 0
    for row in rows:  # one at a time, no padding
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        seen: list[torch.Tensor] = []
        down = model.model.layers[1].mlp.down_proj
        handle = down.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        with torch.inference_mode():
            model(ids)
        handle.remove()
        sums += seen[0][0].abs().double().sum(dim=0)
        tokens += ids.shape[1]
    found = by_activation(model, anatomy, rows).feed_forward[1]
    assert torch.allclose(found, sums / tokens, rtol=1e-5)


def test_taylor_is_weight_times_gradient_over_coupled_weights() -> None:
    model, rows = make("llama"), token_rows(3)
    anatomy = find_anatomy(model)
    salience, found = weight_salience(model, rows), by_taylor(model, anatomy, rows)
    at = "model.layers.0.mlp"
    unit = salience[f"{at}.gate_proj.weight"][5].sum() + salience[f"{at}.up_proj.weight"][5].sum()
    unit += salience[f"{at}.down_proj.weight"][:, 5].sum()
    assert torch.allclose(found.feed_forward[0][5], unit)
    at = "model.layers.1.self_attn"
    head = salience[f"{at}.q_proj.weight"][16:24].sum() + salience[f"{at}.q_proj.bias"][16:24].sum()
    head += salience[f"{at}.o_proj.weight"][:, 16:24].sum()
    assert torch.allclose(found.heads[1][2], head)
    assert all(p.grad is None for p in model.parameters())
    stream = sum(
        tensor[:, 3].sum() if tensor.dim() == 2 and tensor.shape[1] == 32 else 0
        for tensor in salience.values()
    )
    for name, tensor in salience.items():
        written = name.endswith(("o_proj.weight", "down_proj.weight"))
        if written or (tensor.dim() == 1 and len(tensor) == 32 and "q_proj" not in name):
            stream += tensor[3].sum()
    # o_proj is square here, so that its columns were counted above
    for layer in (0, 1):
        stream -= salience[f"model.layers.{layer}.self_attn.o_proj.weight"][:, 3].sum()
    assert torch.allclose(found.hidden[3], stream)


def test_a_gradient_by_hand() -> None:
    """|w dL/dw| of one weight against a finite difference of the completions' mean loss."""
    model, rows = make("qwen2").double(), token_rows(2)
    salience = weight_salience(model, rows)["model.layers.0.mlp.up_proj.weight"][1, 2]
    weight = model.model.layers[0].mlp.up_proj.weight

    def loss(step: float) -> float:
        with torch.no_grad():
            weight[1, 2] += step
            total = tokens = 0.0
            for row in rows:
                ids = torch.from_numpy(row.ids.astype("int64"))[None]
                predicted = model(ids).logits[0, :-1].log_softmax(-1)
                of_each = predicted.gather(1, ids[0, 1:, None])
                total -= float(of_each[row.prompt_tokens - 1 :].sum())
                tokens += row.completion_tokens
            weight[1, 2] -= step
        return total / tokens

    slope = (loss(0.02) - loss(-0.02)) / 0.04
    assert float(salience) == pytest.approx(abs(slope * weight[1, 2].item()), rel=1e-2)


def test_importance_decides_what_stays() -> None:
    one, other = (
        prune(make("llama"), feed_forward=10, importance=kind).model
        for kind in ("activation", "taylor")
    )
    assert not torch.equal(
        one.model.layers[0].mlp.up_proj.weight, other.model.layers[0].mlp.up_proj.weight
    )


def test_sizes_that_do_not_fit_are_refused() -> None:
    for name, size in (("feed_forward", 41), ("key_value_groups", 3), ("hidden", 33)):
        with pytest.raises(BadInput, match=f"width.{name} is {size}, but the model has"):
            prune(make("llama"), **{name: size})
    with pytest.raises(ValidationError, match="at least one of"):
        WidthPrune(kind="width")


def test_activations_that_are_not_finite_are_refused() -> None:
    model = make("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(BadInput, match="not finite"):
        prune(model, feed_forward=10)
