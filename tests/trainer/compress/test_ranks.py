"""Ranks under one budget, against every possible choice."""

import itertools

import pytest
import torch

from trainer.compress.ranks import (
    Matrix,
    check_step,
    error,
    loss_beside,
    parameters,
    uniform,
    within_error,
    within_parameters,
)
from trainer.errors import BadInput


def matrices() -> dict[str, Matrix]:
    shape = (6, 6)
    return {
        "flat": Matrix(shape, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).double()),
        "steep": Matrix(shape, torch.tensor([9.0, 1.0, 0.1, 0.1, 0.0, 0.0]).double()),
        "even": Matrix(shape, torch.tensor([3.0, 2.5, 2.0, 0.3, 0.2, 0.1]).double()),
    }


def choices(given: dict[str, Matrix]) -> list[dict[str, int]]:
    counts = [range(1, matrix.most + 1) for matrix in given.values()]
    return [dict(zip(given, ranks, strict=True)) for ranks in itertools.product(*counts)]


@pytest.mark.parametrize("budget", [36, 48, 60, 72, 96])
def test_no_choice_within_the_budget_loses_less(budget: int) -> None:
    given = matrices()
    found = within_parameters(given, budget)
    within = [ranks for ranks in choices(given) if parameters(given, ranks) <= budget]
    even = uniform(given, budget)
    best = min(loss_beside(given, ranks, even) for ranks in within)
    assert parameters(given, found) <= budget
    assert loss_beside(given, found, even) == pytest.approx(best)
    assert loss_beside(given, even, even) == 1.0 >= best


@pytest.mark.parametrize("budget", [156, 200, 400])
def test_ranks_in_steps_are_the_best_multiples_within_the_budget(budget: int) -> None:
    given = {
        name: Matrix((12, 12), torch.cat([m.spectrum, m.spectrum]).sort(descending=True)[0], 2)
        for name, m in matrices().items()
    }
    found, even = within_parameters(given, budget), uniform(given, budget)
    counts = [range(2, matrix.most + 1, 2) for matrix in given.values()]
    every = [dict(zip(given, ranks, strict=True)) for ranks in itertools.product(*counts)]
    best = min(
        loss_beside(given, ranks, even) for ranks in every if parameters(given, ranks) <= budget
    )
    assert all(rank % 2 == 0 for rank in (*found.values(), *even.values()))
    assert loss_beside(given, found, even) == pytest.approx(best)
    bound = error(given, found)
    good = [parameters(given, ranks) for ranks in every if error(given, ranks) <= bound + 1e-9]
    assert parameters(given, within_error(given, bound + 1e-9)) == min(good)


def test_a_matrix_that_could_spare_ranks_keeps_them_where_its_loss_would_multiply() -> None:
    """By shares of squared norms, `steep` has next to nothing left to lose after one rank."""
    given = {name: Matrix((60, 60), matrix.spectrum) for name, matrix in matrices().items()}
    found = within_parameters(given, 6 * 120)
    assert found["steep"] > within_error(given, error(given, found))["steep"]


@pytest.mark.parametrize("bound", [0.7, 0.6, 0.5])
def test_no_choice_within_the_bound_is_smaller(bound: float) -> None:
    given = matrices()
    found = within_error(given, bound)
    good = [ranks for ranks in choices(given) if error(given, ranks) <= bound]
    assert error(given, found) <= bound
    assert parameters(given, found) == min(parameters(given, ranks) for ranks in good)


def test_what_can_not_be_met_is_refused() -> None:
    with pytest.raises(BadInput, match="leave some matrix no rank"):
        within_parameters(matrices(), 35)
    with pytest.raises(BadInput, match=r"rank_multiple 4 leaves o_proj \(6 x 6\) no rank"):
        check_step("o_proj", (6, 6), 4)
    check_step("o_proj", (6, 6), 3)
    with pytest.raises(BadInput, match="no ranks bring the error down"):
        within_error(matrices(), 0.01)


def test_losses_are_the_tail_of_the_squares() -> None:
    steep = Matrix((2, 2), torch.tensor([3.0, 1.0]).double())
    assert steep.losses() == pytest.approx([1.0, 0.1, 0.0])
