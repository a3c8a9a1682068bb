import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from trainer.scoring import Scored, draw, drawn, likeliest, load_scorer

MODEL = ROOT / "examples" / "demo" / "models" / "teacher"


def log(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_draws_follow_the_distribution_and_never_reach_what_has_no_mass() -> None:
    wanted = [[0.0, 0.5, 0.0, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    n = 20_000
    found = draw(log(wanted), n, torch.Generator().manual_seed(1))
    for row, probabilities in zip(found, wanted, strict=True):
        shares = np.bincount(row.numpy(), minlength=6) / n
        errors = np.sqrt(np.array(probabilities) * (1 - np.array(probabilities)) / n)
        assert (np.abs(shares - probabilities) <= 5 * errors).all()


def test_what_a_row_draws_is_its_own_whoever_is_scored_beside_it() -> None:
    model = load_scorer(MODEL)
    rows = [Scored(tuple(range(1, 9 + 5 * place)), 4, seed=place) for place in range(3)]
    together = drawn(model, rows, 12)
    for row, thoughts in zip(rows, together, strict=True):
        assert np.shape(thoughts.ids) == np.shape(thoughts.values) == (len(row.ids) - 4, 12)
        assert np.allclose(thoughts.values, 1 / 12)
    (alone,) = drawn(model, rows[:1], 12)
    assert alone.ids == together[0].ids
    (other,) = drawn(model, [Scored(rows[0].ids, 4, seed=9)], 12)
    assert other.ids != alone.ids


def test_the_likeliest_are_those_of_the_whole_distribution() -> None:
    model = load_scorer(MODEL)
    rows = [Scored(tuple(range(1, 30)), 10, seed=0), Scored(tuple(range(5, 12)), 1, seed=0)]
    for row, thoughts in zip(rows, likeliest(model, rows, 7), strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
        dense = logits.log_softmax(-1)[row.start - 1 : -1]
        best = dense.topk(7)
        assert thoughts.ids == best.indices.tolist()
        np.testing.assert_allclose(thoughts.values, best.values, atol=1e-3)
        own = [float(dense[place, token]) for place, token in enumerate(row.ids[row.start :])]
        assert thoughts.own == pytest.approx(own, abs=1e-3)


def test_draws_average_to_the_distribution_they_came_from() -> None:
    model = load_scorer(MODEL)
    ids = tuple(range(1, 6))
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([ids])).logits[0, -2].double().softmax(-1).numpy()
    counted = np.zeros(len(wanted))
    draws = 40_000
    (thoughts,) = drawn(model, [Scored(ids, 4, seed=3)], draws)
    np.add.at(counted, thoughts.ids[0], thoughts.values[0])
    errors = np.sqrt(wanted * (1 - wanted) / draws)
    assert (np.abs(counted - wanted) <= 5.5 * errors + 2e-4).all()
