"""SparseGPT against the optimal brain surgeon, solved exactly, and magnitude as the floor."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.trainer.compress.models import logits, tiny_llama, token_rows
from trainer.compress import magnitude, sparsegpt, wanda
from trainer.compress.masks import keep_in_all, keep_in_rows
from trainer.compress.sparsegpt import inverse_factor, prune
from trainer.errors import BadInput
from trainer.spec import MagnitudePrune, SparseGptPrune, WandaPrune


def problem(m: int = 4, n: int = 8) -> tuple[Tensor, Tensor]:
    """A weight [m, n] and inputs [N, n] that are strongly correlated."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(m, n, dtype=torch.float64, generator=generator)
    mix = torch.eye(n, dtype=torch.float64) + 0.7
    mix += 0.3 * torch.randn(n, n, dtype=torch.float64, generator=generator)
    return weight, torch.randn(300, n, dtype=torch.float64, generator=generator) @ mix.T


def stage(**fields: object) -> SparseGptPrune:
    return SparseGptPrune(kind="sparsegpt", **{"damping": 1e-9, "block": 8, **fields})


def lost(weight: Tensor, made: Tensor, x: Tensor) -> float:
    return float(((weight - made) @ x.T).square().sum())


def surgeon(weight: Tensor, hessian: Tensor, kept: Tensor) -> Tensor:
    """Column by column with an explicit inverse of what is left of H (eq. 4 of the paper)."""
    made = weight.clone()
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[column:, column:])
        for row in range(len(made)):
            if not kept[row, column]:
                made[row, column:] -= made[row, column] / inverse[0, 0] * inverse[0]
    return made * kept


@pytest.mark.parametrize("block", [2, 3, 8, 128])
def test_it_is_the_optimal_brain_surgeon_from_left_to_right(block: int) -> None:
    weight, x = problem()
    made = prune(weight, inverse_factor(x.T @ x, 1e-12)[0], stage(block=block), 0.5)
    expected = surgeon(weight, x.T @ x, made != 0)
    assert torch.allclose(made, expected, atol=1e-6)


def test_a_linear_that_is_given_nothing_loses_its_smallest_weights() -> None:
    weight, x = problem()
    made = prune(weight, inverse_factor(0 * x.T @ x, 0.01)[0], stage(), 0.5)
    assert torch.equal(made, weight * keep_in_all(weight.abs(), 0.5, "unstructured"))


def test_removing_the_first_columns_leaves_the_best_of_the_rest() -> None:
    """Then every removed weight is mended by all that stay: the least-squares optimum."""
    weight, x = problem()
    weight[:, :3] *= 1e-3  # so that these go
    made = prune(weight, inverse_factor(x.T @ x, 1e-12)[0], stage(), 3 / 8)
    assert (made[:, :3] == 0).all()
    best = torch.linalg.lstsq(x[:, 3:], x @ weight.T).solution.T
    assert torch.allclose(made[:, 3:], best, atol=1e-6)


def test_the_first_choice_is_the_cheapest_of_all() -> None:
    """One weight of one row goes: enumerated, none costs less."""
    weight, x = problem(m=1)
    hessian = x.T @ x
    costs = []
    for column in range(8):
        rest = [i for i in range(8) if i >= column]
        inverse = torch.linalg.inv(hessian[rest][:, rest])
        costs.append(float(weight[0, column] ** 2 / inverse[0, 0]))
    made = prune(weight, inverse_factor(hessian, 1e-12)[0], stage(), 1 / 8)
    assert (made[0] == 0).nonzero().item() == min(range(8), key=costs.__getitem__)
    assert lost(weight, made, x) == pytest.approx(min(costs), rel=1e-6)


def test_it_beats_magnitude_and_plain_masks_on_correlated_inputs() -> None:
    weight, x = problem(m=16, n=32)
    factor, _ = inverse_factor(x.T @ x, 0.01)
    for pattern in ("unstructured", "2:4", "4:8"):
        made = prune(weight, factor, stage(pattern=pattern, block=16), 0.5)
        floor = weight * keep_in_all(weight.abs(), 0.5, pattern)
        wanda = weight * keep_in_rows(weight.abs() * x.norm(dim=0), 0.5, pattern)
        same_mask = weight * (made != 0)
        assert lost(weight, made, x) < 0.8 * lost(weight, floor, x)
        assert lost(weight, made, x) < lost(weight, wanda, x)
        assert lost(weight, made, x) < lost(weight, same_mask, x)
        assert float((made == 0).double().mean()) == pytest.approx(0.5, abs=0.001)


def test_patterns_keep_so_many_of_each_group() -> None:
    weight, x = problem(m=6, n=16)
    factor, _ = inverse_factor(x.T @ x, 0.01)
    for pattern, kept, group in (("2:4", 2, 4), ("4:8", 4, 8)):
        made = prune(weight, factor, stage(pattern=pattern, block=16), 0.5)
        assert ((made != 0).reshape(-1, group).sum(dim=1) == kept).all()
    with pytest.raises(ValidationError, match="no multiple of the groups"):
        stage(pattern="4:8", block=12)


def test_a_model_is_pruned_layer_by_layer_and_says_that_nothing_shrinks() -> None:
    model = tiny_llama()
    before = logits(model)
    outcome = sparsegpt.apply(SparseGptPrune(kind="sparsegpt"), model, token_rows())
    assert outcome.details["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert "shrinks nothing" in outcome.notes[0]
    floor = magnitude.apply(MagnitudePrune(kind="magnitude"), tiny_llama(), token_rows()).model
    near, far = (float((logits(m) - before).square().mean()) for m in (outcome.model, floor))
    assert near < far


@pytest.mark.parametrize(
    ("module", "kind"),
    [(magnitude, MagnitudePrune), (wanda, WandaPrune), (sparsegpt, SparseGptPrune)],
)
def test_layers_may_have_shares_of_their_own(module, kind) -> None:  # type: ignore[no-untyped-def]
    name = module.__name__.rpartition(".")[2]
    spec = kind(kind=name, layer_sparsities=(0.2, 0.0, 0.7))
    outcome = module.apply(spec, tiny_llama(), token_rows(4))
    assert outcome.details["layer_sparsities"] == pytest.approx([0.2, 0.0, 0.7], abs=0.01)
    with pytest.raises(BadInput, match=r"layer_sparsities has 3 values"):
        module.apply(spec, tiny_llama(layers=2), token_rows(2))
    with pytest.raises(ValidationError, match=r"layer_sparsities\[1\] is 1"):
        kind(kind=name, layer_sparsities=(0.5, 1.0))
    with pytest.raises(ValidationError, match="layer_sparsities replaces sparsity"):
        kind(kind=name, layer_sparsities=(0.2, 0.0, 0.7), sparsity=0.9)


def test_blocks_and_damping_matter() -> None:
    weight, x = problem(m=4, n=16)
    factor, _ = inverse_factor(x.T @ x, 0.01)
    one, other = (prune(weight, factor, stage(block=size), 0.5) for size in (4, 16))
    assert not torch.equal(one != 0, other != 0)
    heavy, taken = inverse_factor(x.T @ x, 10.0)
    assert taken == 10.0
    assert not torch.allclose(prune(weight, heavy, stage(block=16), 0.5), other)


def test_magnitude_takes_the_smallest_of_the_whole_matrix() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 20.0, 10.0]])
    kept = keep_in_all(scores, 0.5, "unstructured")
    assert kept.tolist() == [[False] * 4, [True] * 4]


def test_inputs_that_are_not_finite_are_refused() -> None:
    model = tiny_llama()
    model.model.layers[0].mlp.gate_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(BadInput, match="is not finite"):
        sparsegpt.apply(SparseGptPrune(kind="sparsegpt"), model, token_rows(2))
