"""MiniLLM's returns and clipped gradient, by hand."""

import itertools

import pytest
import torch

from tests.trainer.objectives.cases import draw
from trainer.objectives import Head, head_loss
from trainer.objectives.divergences import reverse
from trainer.objectives.policy import policy_term, returns

R = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("discount", "normalize", "own", "expected"),
    [
        (1.0, False, True, [7, 6, 4]),
        (1.0, False, False, [6, 4, 0]),
        (1.0, True, False, [3, 4, 0]),
        (1.0, True, True, [7 / 3, 3, 4]),
        (0.5, False, True, [3, 4, 4]),
        (0.5, False, False, [4, 4, 0]),
        (0.5, True, False, [4 / 1.5, 4, 0]),
    ],
)
def test_returns_by_hand(
    discount: float, normalize: bool, own: bool, expected: list[float]
) -> None:
    assert returns(R, discount, normalize, own).tolist() == pytest.approx(expected)


def test_a_return_does_not_know_where_the_answer_stands() -> None:
    """Peers discount by the absolute position, so that a long prompt makes an answer worthless."""
    later = returns(torch.cat([torch.zeros(50), R]), 0.5, False, False)
    assert later[50:].tolist() == returns(R, 0.5, False, False).tolist()


def test_the_clip_by_hand() -> None:
    logits = torch.zeros((4, 2), dtype=torch.float64).requires_grad_()  # q = 1/2
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    importance = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
    old = torch.full((4,), 0.5, dtype=torch.float64).log()
    term = policy_term(torch.zeros(4, dtype=torch.long), advantages, old, importance, 0.2)
    value = term(logits, slice(0, 4))
    assert value.tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    value.sum().backward()
    assert logits.grad is not None
    # Clipped where the step would go further out; elsewhere -A * ratio * (1 - q).
    assert logits.grad[:, 0].tolist() == pytest.approx([0.0, -0.25, 0.75, 0.0])


def test_what_was_drawn_gets_no_gradient_through_its_reward() -> None:
    """Peers left the advantage attached. Gradcheck holds it, and old log-probs, constant."""
    hidden, weight = draw(3, 2, seed=1).requires_grad_(), draw(5, 2, seed=2).requires_grad_()
    args = (torch.tensor([0, 3, 4]), R, torch.full((3,), -1.6).double(), torch.ones(3).double())
    terms = {"policy": (1.0, policy_term(*args, 10.0))}
    assert torch.autograd.gradcheck(
        lambda h, w: head_loss(h, Head(w), terms, 3.0)[0], (hidden, weight)
    )


def test_the_decomposed_gradient_is_that_of_the_whole_reverse_kl() -> None:
    """Two tokens over three words, all nine answers enumerated: the policy gradient of E[r_2 | y_1]
    and the exact single steps together are the gradient of KL(q || p) over whole answers."""
    p1, p2 = draw(1, 3, seed=1).log_softmax(-1)[0], draw(3, 3, seed=2).log_softmax(-1)
    logits = draw(4, 3, seed=3).requires_grad_()  # first token, then one row per first token

    q1, q2 = logits[0].log_softmax(-1), logits[1:].log_softmax(-1)
    joint_q, joint_p = q1[:, None] + q2, p1[:, None] + p2
    (exact,) = torch.autograd.grad((joint_q.exp() * (joint_q - joint_p)).sum(), logits)

    total = torch.zeros(())
    for a, b in itertools.product(range(3), range(3)):
        chance = (q1[a] + q2[a, b]).exp().detach()
        rows, log_p = torch.stack([logits[0], logits[1 + a]]), torch.stack([p1, p2[a]])
        drawn = torch.tensor([a, b])
        own = rows.detach().log_softmax(-1).gather(1, drawn[:, None]).squeeze(1)
        rewards = log_p.gather(1, drawn[:, None]).squeeze(1) - own
        ahead = returns(rewards, 1.0, normalize=False, own=False)
        policy = policy_term(drawn, ahead, own, torch.ones(2), 10.0)(rows, slice(0, 2))
        single = reverse(log_p, rows.log_softmax(-1))
        total = total + chance * (policy + single).sum()
    (found,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
