"""Wanda against its definition, worked out by hand or by brute force."""

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.models import logits, tiny_llama, token_rows
from trainer.compress import wanda
from trainer.compress.activations import observe
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import keep_in_rows
from trainer.spec import WandaPrune


def test_scores_are_weight_times_input_norm() -> None:
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    norms = torch.tensor([4.0, 0.5])
    expected = torch.tensor([[4.0, 1.0], [12.0, 0.25]], dtype=torch.float64)
    assert torch.equal(wanda.importance(weight, norms), expected)


def test_the_lowest_of_each_row_go_not_the_lowest_of_all() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 20.0, 10.0]])
    kept = keep_in_rows(scores, 0.5, "unstructured")
    assert kept.tolist() == [[False, False, True, True], [True, True, False, False]]


def test_sparsity_decides_how_many() -> None:
    scores = torch.rand(5, 40)
    for sparsity in (0.1, 0.25, 0.9):
        kept = keep_in_rows(scores, sparsity, "unstructured")
        assert (~kept).sum(dim=1).tolist() == [round(40 * sparsity)] * 5


def test_n_of_each_m_neighbours_stay() -> None:
    scores = torch.rand(6, 16)
    for pattern, kept_each, group in (("2:4", 2, 4), ("4:8", 4, 8)):
        kept = keep_in_rows(scores, 0.5, pattern)
        grouped, groups = kept.reshape(-1, group), scores.reshape(-1, group)
        assert (grouped.sum(dim=1) == kept_each).all()
        lowest_kept = groups.masked_fill(~grouped, 9).min(dim=1).values
        assert (lowest_kept >= groups.masked_fill(grouped, -1).max(dim=1).values).all()


def test_ties_still_give_the_exact_count() -> None:
    kept = keep_in_rows(torch.zeros(3, 8), 0.5, "unstructured")
    assert kept.sum(dim=1).tolist() == [4, 4, 4]


def test_later_layers_are_scored_on_what_comes_through_pruned_ones() -> None:
    """Layer 1's mask equals brute force on a model whose layer 0 is pruned, and no other."""
    rows, stage = token_rows(), WandaPrune(kind="wanda", sparsity=0.6)
    pruned = tiny_llama()
    wanda.apply(stage, pruned, rows)
    half, dense = tiny_llama(), tiny_llama()
    half.model.layers[0].load_state_dict(pruned.model.layers[0].state_dict())
    name = "mlp.up_proj"
    actual = pruned.model.layers[1].get_submodule(name).weight != 0
    assert torch.equal(actual, brute_force_mask(half, name, rows, stage))
    assert not torch.equal(actual, brute_force_mask(dense, name, rows, stage))


def brute_force_mask(model, name, rows, stage):  # type: ignore[no-untyped-def]
    """Layer 1's mask, one row at a time without padding."""
    layer = model.model.layers[1]
    linear, seen = layer.get_submodule(name), []
    for row in rows:
        observe(model, {name: linear}, [row], lambda _, x, m: seen.append(x[m]), until=layer)
    norms = torch.cat(seen).double().square().sum(dim=0).sqrt()
    scores = linear.weight.detach().double().abs() * norms
    count = round(stage.sparsity * scores.shape[1])
    threshold = scores.sort(dim=1).values[:, count - 1 : count]
    return scores > threshold


def test_padding_is_not_counted() -> None:
    """All rows in one padded batch see the same activations as each alone."""
    model, rows = tiny_llama(), token_rows()
    model.model.embed_tokens.weight.data[0] = 1.0  # what rows are padded with, else all zeros
    linears = find_linears(find_layers(model).layers[0])
    sums: list[torch.Tensor] = []
    for groups in ([rows], [[row] for row in rows]):
        total = torch.zeros(64, dtype=torch.float64)
        for group in groups:
            observe(
                model,
                {"q": linears["self_attn.q_proj"]},
                group,
                lambda _, x, m, total=total: total.add_(x[m].double().square().sum(0)),
                until=model.model.layers[0],
            )
        sums.append(total)
    assert torch.allclose(*sums, rtol=1e-5)


def test_the_model_changes_and_the_report_says_that_nothing_shrinks() -> None:
    model = tiny_llama()
    before = logits(model)
    outcome = wanda.apply(WandaPrune(kind="wanda", sparsity=0.5), model, token_rows())
    assert not torch.allclose(logits(outcome.model), before, atol=1e-3)
    assert outcome.details["sparsity"] == 0.5
    assert "shrinks nothing" in outcome.notes[0]
    assert (outcome.model.model.embed_tokens.weight == 0).sum() <= 64  # the pad row alone


def test_a_pattern_leaves_no_say_to_sparsity() -> None:
    with pytest.raises(ValidationError, match="zeroes half"):
        WandaPrune(kind="wanda", pattern="2:4", sparsity=0.6)
