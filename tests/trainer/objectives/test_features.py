"""Feature and sorted-probability distances, by hand and against loops."""

import math

import pytest
import torch

from tests.trainer.objectives.cases import draw
from trainer.objectives import Head
from trainer.objectives.features import hidden_distance, relation_kl
from trainer.objectives.sorted_distance import sorted_distance, sorted_distance_term


def test_hidden_distances_by_hand() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert hidden_distance(a, b, "mse").item() == pytest.approx(2.5)
    assert hidden_distance(a, b, "cosine").item() == pytest.approx(1.0)
    assert hidden_distance(a, a * 3, "cosine").item() == pytest.approx(0.0, abs=1e-6)


def test_hidden_distances_are_widened() -> None:
    a = draw(2, 3).bfloat16()
    assert hidden_distance(a, a, "mse").dtype == torch.float32


def causal(length: int) -> torch.Tensor:
    return torch.ones(1, length, length).tril().bool()


@pytest.mark.parametrize("heads", [1, 2])
def test_relation_kl_equals_its_definition(heads: int) -> None:
    """Widths 4 and 6: the heads are re-split, so they may differ."""
    student, teacher = draw(1, 3, 4, seed=1), draw(1, 3, 6, seed=2)
    expected = []
    for t in range(3):
        value = 0.0
        for h in range(heads):
            rows = []
            for states in (teacher, student):
                width = states.shape[-1] // heads
                part = states[0, :, h * width : (h + 1) * width]
                scores = [float(part[t] @ part[s]) / math.sqrt(width) for s in range(t + 1)]
                total = sum(math.exp(score) for score in scores)
                rows.append([math.exp(score) / total for score in scores])
            value += sum(p * math.log(p / q) for p, q in zip(*rows, strict=True)) / heads
        expected.append(value)
    found = relation_kl(student, teacher, heads, causal(3))
    assert found[0].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_relation_kl_has_a_gradient_and_is_zero_for_identical_states() -> None:
    student, teacher = draw(1, 3, 4, seed=1).requires_grad_(), draw(1, 3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: relation_kl(s, teacher, 2, causal(3)), (student,))
    assert relation_kl(teacher, teacher, 2, causal(3)).abs().max().item() == 0.0


def test_relations_are_made_in_fp32_under_autocast_too() -> None:
    """Their products in 16 bits would be off by more than what a student near its teacher lacks."""
    teacher = draw(2, 7, 16, seed=2).bfloat16()
    student = (teacher + draw(2, 7, 16, seed=1) / 100).bfloat16()
    exact = relation_kl(student.double(), teacher.double(), 2, causal(7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = relation_kl(student, teacher, 2, causal(7))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-6)


def test_sorted_distance_by_hand() -> None:
    """p = 1/2, 1/2 over two tokens; q = 1/4, 1/2, 1/4 over three: |0| + |1/4| + |-1/4|."""
    p = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    q = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    assert sorted_distance(q, p, 1.0).item() == pytest.approx(0.5)
    assert sorted_distance(q, q[:, [2, 0, 1]], 1.0).item() == pytest.approx(0.0)


def test_sorted_distance_counts_where_places_are_shared() -> None:
    hidden, head = draw(2, 3, seed=1), Head(draw(5, 3, seed=2))
    logits = draw(4, 7, seed=3).requires_grad_()
    term = sorted_distance_term(hidden, head, torch.tensor([1, -1, -1, 0]), 2.0)
    parts = torch.cat([term(logits[:3], slice(0, 3)), term(logits[3:], slice(3, 4))])
    expected = [
        sorted_distance(logits[i : i + 1], head.logits(hidden[j : j + 1]), 2.0).item()
        for i, j in ((0, 1), (3, 0))
    ]
    assert parts.tolist() == pytest.approx([expected[0], 0.0, 0.0, expected[1]])
    assert torch.autograd.gradcheck(lambda x: term(x, slice(0, 4)), (logits,))
