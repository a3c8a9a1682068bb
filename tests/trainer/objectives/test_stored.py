"""Losses on a stored signal: they go to the dense ones, and are unbiased where they are drawn."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from prompts.signal import top_k_row
from tests.trainer.objectives.cases import CASES, Case, draw
from trainer.objectives import Head, head_loss, on_logits
from trainer.objectives.divergences import forward
from trainer.objectives.stored import outcomes, sampled_term, top_k_term

K, V = 6, 9
LARGE = slice(0, 1000)
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def top(teacher: Tensor, k: int, tau: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The k likeliest ids, their log-probs, and the log of what they leave."""
    log_p = (teacher / tau).log_softmax(-1)
    logprobs, ids = log_p.topk(k, dim=-1)
    left = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1).clamp(min=-1023.0)
    return ids, logprobs, left


@every
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_with_all_tokens_stored_it_is_the_dense_divergence(case: Case, tau: float) -> None:
    student, teacher = draw(K, V, seed=1), draw(K, V, seed=2) * 2
    term = top_k_term(case.divergence, *top(teacher, V, tau), tau)
    torch.testing.assert_close(
        term(student, LARGE), on_logits(case.divergence, student, teacher, tau)
    )


@pytest.mark.parametrize("case", CASES[:4] + CASES[6:11], ids=lambda case: case.name)
def test_more_stored_tokens_come_closer_from_below(case: Case) -> None:
    """Outcomes put together can only hide a divergence: it grows with k, to the dense one."""
    student, teacher = draw(K, V, seed=1), draw(K, V, seed=2) * 2
    found = [
        top_k_term(case.divergence, *top(teacher, k), 1.0)(student, LARGE) for k in range(1, V + 1)
    ]
    dense = on_logits(case.divergence, student, teacher, 1.0)
    for fewer, more in itertools.pairwise(found):
        assert (more - fewer).min().item() > -1e-12
    torch.testing.assert_close(found[V - 2], dense)  # the tail is one token: nothing is hidden
    assert not torch.allclose(found[0], dense)


def test_both_sides_have_the_tail() -> None:
    """By hand: p = 1/2, 1/4, 1/4 with one stored; q = 1/4, 1/4, 1/2. Scaling the stored ones to
    one would make p = 1 and the loss log 4; leaving the tail out would give 1/2 log 2."""
    p, q = (
        torch.tensor([x], dtype=torch.float64).log() for x in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    )
    found = top_k_term(forward, *top(p, 1), 1.0)(q, LARGE)
    assert found.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75), rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_sure_teachers_tail_is_no_more_than_rounding_and_costs_no_more(case: Case) -> None:
    """A tail below what 32-bit log-probs can tell must not be read as nothing at all."""
    student, teacher = draw(K, 1000, seed=1).float(), draw(K, 1000, seed=2).float()
    teacher[:, 7] += 30
    log_p, ids = teacher.log_softmax(-1).topk(16)
    row = top_k_row(ids[:, 0].int().numpy(), ids.int().numpy(), log_p.numpy())
    signal = (ids, torch.from_numpy(row.logprobs), torch.from_numpy(row.tail_logprob))
    found = top_k_term(case.divergence, *signal, 1.0)(student, LARGE)
    dense = on_logits(case.divergence, student, teacher, 1.0)
    assert (found <= dense + 1e-3).all()


def test_the_students_tail_keeps_its_digits_near_one() -> None:
    log_q = torch.tensor([[0.0, -60.0, -61.0]], dtype=torch.float64).log_softmax(-1)
    expected = math.log(math.exp(-60) + math.exp(-61))
    assert outcomes(log_q, torch.tensor([[0]]))[0, 1].item() == pytest.approx(expected, rel=1e-12)


@every
@pytest.mark.parametrize("k", [1, 3, V - 1, V])
def test_stored_gradients_agree_with_finite_differences(case: Case, k: int) -> None:
    if case.fields["kind"] == "adaptive_kl":
        return  # Its shares are weights without a gradient: test_divergences.py.
    teacher = draw(2, V, seed=2)
    hidden, weight = draw(2, 3, seed=1).requires_grad_(), draw(V, 3, seed=3).requires_grad_()
    terms = {"d": (1.0, top_k_term(case.divergence, *top(teacher, k, 2.0), 2.0))}
    assert torch.autograd.gradcheck(
        lambda h, w: head_loss(h, Head(w), terms, 2.0, 1)[0], (hidden, weight)
    )


def sampled(teacher: Tensor, draws: int, proposal_tau: float) -> tuple[Tensor, Tensor]:
    """Draws of softmax(teacher / proposal_tau), each weighed p / (n proposal)."""
    proposal = (teacher / proposal_tau).softmax(-1)
    ids = torch.multinomial(proposal, draws, True, generator=torch.Generator().manual_seed(1))
    return ids, teacher.softmax(-1).gather(-1, ids) / proposal.gather(-1, ids) / draws


@pytest.mark.parametrize("proposal_tau", [1.0, 1.5])
def test_a_sampled_signal_is_unbiased_within_its_standard_error(proposal_tau: float) -> None:
    """Value and gradient, over 4000 independent signals of 12 draws."""
    student, teacher = draw(1, V, seed=1), draw(1, V, seed=2)
    signals, draws = 4000, 12
    ids, weights = sampled(teacher, signals * draws, proposal_tau)
    ids, weights = ids.reshape(signals, draws), weights.reshape(signals, draws) * signals
    logits = student.expand(signals, V).clone().requires_grad_()
    found = sampled_term(ids, weights, 1.0)(logits, slice(0, signals))
    found.sum().backward()
    p, q = teacher.softmax(-1), student.softmax(-1)
    dense = -(p * q.log()).sum()
    assert logits.grad is not None
    for values, exact in ((found.detach()[:, None], dense.reshape(1)), (logits.grad, (q - p)[0])):
        error = values.std(0) / math.sqrt(signals)
        assert ((values.mean(0) - exact).abs() < 4 * error).all()


def test_draws_of_the_teacher_itself_cost_their_mean_surprise() -> None:
    ids = torch.tensor([[0, 0, 2]])
    logits = torch.tensor([[0.3, -1.0, 0.7]], dtype=torch.float64)
    log_q = (logits / 2).log_softmax(-1)[0]
    found = sampled_term(ids, torch.full((1, 3), 1 / 3, dtype=torch.float64), 2.0)(logits, LARGE)
    assert found.item() == pytest.approx(-4 * (2 * log_q[0] + log_q[2]).item() / 3, rel=1e-12)
