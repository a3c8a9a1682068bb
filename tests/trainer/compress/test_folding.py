"""Folded attention: exact where it can be, and never without SVD beside it."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.families import make
from tests.trainer.compress.models import logits, token_rows
from trainer.compress import folding, magnitude
from trainer.errors import BadInput
from trainer.spec import MagnitudePrune, TensorFactorize


def test_folding_puts_heads_last_and_comes_back() -> None:
    weight = torch.arange(24.0).reshape(6, 4)  # three heads of 2, width 4
    folded = folding.fold(weight, 3, reads_heads=False)
    assert folded.shape == (4, 2, 3)
    assert folded[1, 0, 2] == weight[4, 1]
    assert torch.equal(folding.unfold(folded, reads_heads=False), weight.double())
    again = folding.fold(weight.T, 3, reads_heads=True)
    assert np.array_equal(again, folded)
    assert torch.equal(folding.unfold(again, reads_heads=True), weight.T.double())


def low_rank(seed: int = 0) -> np.ndarray:
    """[8, 4, 2, 3] of Tucker ranks 2 and 2 over its first two modes."""
    random = np.random.default_rng(seed)
    core, u, v = random.normal(size=(2, 2, 2, 3)), random.normal(size=(8, 2)), None
    v = random.normal(size=(4, 2))
    return np.einsum("abpk,da,hb->dhpk", core, u, v)


def test_tucker_finds_a_tensor_of_its_own_ranks() -> None:
    tensor = low_rank()
    made = folding.tucker(tensor, 0.5)
    assert made.parameters <= 0.5 * tensor.size
    assert made.residuals[0] < 1e-8
    assert np.allclose(made.tensor, tensor)


def test_tucker_of_one_head_and_one_weight_is_no_better_than_its_svd() -> None:
    """Of a matrix it is an SVD with a spare core: the Eckart-Young error, at any basis."""
    matrix = np.random.default_rng(1).normal(size=(8, 4))
    first, second = folding.tucker_ranks((8, 4, 1, 1), 0.9)
    made = folding.tucker(matrix[:, :, None, None], 0.9)
    values = np.linalg.svd(matrix, compute_uv=False)
    tail = np.sqrt((values[min(first, second) :] ** 2).sum() / (values**2).sum())
    assert made.residuals[0] == pytest.approx(tail, abs=1e-6)


def test_cp_keeps_the_best_of_its_starts() -> None:
    random = np.random.default_rng(2)
    parts = [random.normal(size=(size, 2)) for size in (6, 4, 2, 3)]
    tensor = np.einsum("ar,br,cr,dr->abcd", *parts)
    made = folding.cp(tensor, 0.25, starts=4, seed=0)
    assert made.parameters == 2 * (6 + 4 + 2 + 3)
    assert len(made.residuals) == 4
    assert made.residuals[0] == min(made.residuals)
    assert made.residuals[0] == pytest.approx(folding.residual(tensor, made.tensor), abs=1e-9)
    assert made.residuals[0] < 0.05
    alone = folding.cp(tensor, 0.25, starts=1, seed=0)
    assert alone.residuals[0] >= made.residuals[0]
    assert folding.cp(tensor, 0.25, starts=1, seed=5).residuals != alone.residuals


def test_starts_of_cp_that_come_to_nothing_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, real = np.random.default_rng(3).normal(size=(6, 4, 2, 3)), folding.parafac

    def failing(given: np.ndarray, random_state: int, **options: Any) -> Any:
        if random_state == 0:
            raise np.linalg.LinAlgError("singular")
        made = real(given, random_state=random_state, **options)
        if random_state == 1:
            made.factors[0][:] = np.nan
        return made

    monkeypatch.setattr(folding, "parafac", failing)
    made = folding.cp(tensor, 0.25, starts=3, seed=0)
    assert len(made.residuals) == 1
    assert np.isfinite(made.tensor).all()
    with pytest.raises(BadInput, match="none of 2 starts"):
        folding.cp(tensor, 0.25, starts=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tucker", "cp"])
def test_the_report_has_svd_at_equal_parameters_beside(form: str) -> None:
    model = make("qwen2")
    spec = TensorFactorize(kind="tensor", form=form, parameter_ratio=0.6)
    outcome = folding.apply(spec, model, token_rows(2))
    assert "experimental" in outcome.notes[0]
    for layer in outcome.details["layers"]:
        for found in layer.values():
            assert found["svd_parameters"] <= found["parameters"]
            assert 0 < found["relative_error"] < 1
            assert 0 < found["svd_relative_error"] < 1
    assert not torch.allclose(logits(model), logits(make("qwen2")), atol=1e-2)
    more = TensorFactorize(kind="tensor", form=form, parameter_ratio=0.9)
    better = folding.apply(more, make("qwen2"), token_rows(2)).details["layers"][0]
    assert (
        better["query_output"]["relative_error"]
        < (outcome.details["layers"][0]["query_output"]["relative_error"])
    )


def test_that_a_mask_is_gone_is_told() -> None:
    stage = TensorFactorize(kind="tensor")
    assert len(folding.apply(stage, make("qwen2"), ()).notes) == 1
    model = magnitude.apply(MagnitudePrune(kind="magnitude"), make("qwen2"), ()).model
    notes = folding.apply(stage, model, ()).notes
    assert "a mask's zeros are gone: 50% of" in notes[1]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(BadInput, match="leaves no rank"):
        folding.tucker_ranks((8, 4, 2, 3), 0.01)
    with pytest.raises(BadInput, match="leaves no rank"):
        folding.cp(low_rank(), 0.01, 1, 0)
    with pytest.raises(ValidationError, match="form: cp alone"):
        TensorFactorize(kind="tensor", starts=5)
