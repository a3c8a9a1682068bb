"""Every divergence against its definition in fp64, and where definitions are easily missed."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.trainer.objectives.cases import CASES, Case, draw, softmax
from trainer.objectives import (
    DIVERGENCES,
    Head,
    cross_entropy_term,
    divergence_term,
    head_loss,
    on_logits,
    weighted,
)
from trainer.objectives.divergences import jsd
from trainer.spec.divergence import DivergenceSpec

K, V, D = 11, 7, 5
TEACHER_HEAD = Head(draw(V, 3, seed=5))

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_every_kind_of_the_spec_is_there_and_in_the_table() -> None:
    kinds = {
        get_args(one.model_fields["kind"].annotation)[0]
        for one in get_args(get_args(DivergenceSpec)[0])
    }
    assert DIVERGENCES.keys() == kinds == {case.fields["kind"] for case in CASES}


@every
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_it_equals_its_definition_at_every_temperature(case: Case, tau: float) -> None:
    student, teacher = draw(K, V, seed=1), draw(K, V, seed=2) * 3
    expected = [
        tau**2 * case.definition(softmax([x / tau for x in t]), softmax([x / tau for x in s]))
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    found = on_logits(case.divergence, student, teacher, tau)
    assert found.tolist() == pytest.approx(expected, rel=1e-11, abs=1e-14)


@every
def test_it_equals_the_value_by_hand(case: Case) -> None:
    p = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert case.divergence(p.log(), q.log()).item() == pytest.approx(case.by_hand, rel=1e-12)


@every
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_identical_models_have_no_divergence_and_no_gradient(case: Case, tau: float) -> None:
    """What peers call KL is at times a cross-entropy, which is the teacher's entropy here."""
    logits = (draw(K, V) * 5).requires_grad_()
    value = on_logits(case.divergence, logits, logits.detach().clone(), tau)
    value.sum().backward()
    assert value.abs().max().item() < 1e-14
    assert logits.grad is not None
    # TVD has a corner there: its subgradient is 0 as well.
    assert logits.grad.abs().max().item() < 1e-12


def loss_of(
    case: Case, hidden: Tensor, head: Head, teacher: Tensor, chunk: int | None = None
) -> Tensor:
    term = divergence_term(case.divergence, teacher, TEACHER_HEAD, 2.0)
    terms = {
        "divergence": (0.7, weighted(term, torch.linspace(0.1, 1.0, len(hidden)).double())),
        "cross_entropy": (0.3, cross_entropy_term(torch.arange(len(hidden)) % V)),
    }
    return head_loss(hidden, head, terms, 4.0, chunk)[0]


@every
def test_gradients_through_the_chunked_head_agree_with_finite_differences(case: Case) -> None:
    if case.fields["kind"] == "adaptive_kl":
        return  # Its shares are weights without a gradient: the next test.
    teacher, hidden, weight = draw(4, 3, seed=4), draw(4, D, seed=1), draw(V, D, seed=2)
    given = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: loss_of(case, h, Head(w), teacher, 3), given)


def test_the_adaptive_shares_are_held_while_the_kls_move() -> None:
    (case,) = [case for case in CASES if case.fields == {"kind": "adaptive_kl", "head_mass": 0.5}]
    log_p, logits = draw(1, V, seed=2).log_softmax(-1), draw(1, V, seed=1).requires_grad_()
    log_q = logits.log_softmax(-1)
    (grad,) = torch.autograd.grad(case.divergence(log_p, log_q).sum(), logits, retain_graph=True)
    forward, reverse = ((a.exp() * (a - b)).sum() for a, b in ((log_p, log_q), (log_q, log_p)))
    share = ((case.divergence(log_p, log_q) - reverse) / (forward - reverse)).detach()
    mixed = (share * forward + (1 - share) * reverse).sum()
    torch.testing.assert_close(grad, torch.autograd.grad(mixed, logits)[0], rtol=1e-9, atol=1e-12)


@every
@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_change_nothing(case: Case, chunk: int) -> None:
    found = []
    for size in (K, chunk):
        hidden, weight = draw(K, D, seed=1).requires_grad_(), draw(V, D, seed=2).requires_grad_()
        loss = loss_of(case, hidden, Head(weight), draw(K, 3, seed=4), size)
        loss.backward()
        found.append((loss.detach(), hidden.grad, weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-13)


@every
def test_accumulated_parts_make_the_whole(case: Case) -> None:
    """Divided by the whole's count, parts of any size add up: dividing each by its own wouldn't."""
    hidden, head, teacher = draw(K, D, seed=1), Head(draw(V, D, seed=2)), draw(K, 3, seed=4)

    def part(rows: slice) -> Tensor:
        term = divergence_term(case.divergence, teacher[rows], TEACHER_HEAD, 1.0)
        return head_loss(hidden[rows], head, {"d": (1.0, term)}, float(K))[0]

    whole = part(slice(0, K))
    assert (part(slice(0, 2)) + part(slice(2, K))).item() == pytest.approx(whole.item(), rel=1e-12)


@every
def test_a_token_the_teacher_rules_out(case: Case) -> None:
    """-inf logits make no NaN; only what asks for log p there is infinite, and rightly so."""
    teacher = torch.tensor([[0.0, 0.5, -torch.inf]], dtype=torch.float64)
    student = torch.tensor([[0.3, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    value = on_logits(case.divergence, student, teacher, 1.0).sum()
    p, q = [x.softmax(-1)[0].tolist() for x in (teacher, student.detach())]
    try:
        expected = case.definition(p, q)
    except ZeroDivisionError:
        assert value.item() == float("inf")
        return
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-11)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@every
def test_a_token_both_rule_out_adds_nothing(case: Case) -> None:
    teacher, student = draw(K, V, seed=2), draw(K, V, seed=1)
    pad = torch.full((K, 2), -torch.inf, dtype=torch.float64)
    longer = torch.cat([student, pad], dim=1).requires_grad_()
    found = on_logits(case.divergence, longer, torch.cat([teacher, pad], dim=1), 1.0)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), on_logits(case.divergence, student, teacher, 1.0))
    assert longer.grad is not None
    assert torch.isfinite(longer.grad).all()


@every
def test_16_bits_are_widened_and_nothing_is_narrowed(case: Case) -> None:
    student, teacher = draw(K, V, seed=1), draw(K, V, seed=2)
    for dtype, wide in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        found = on_logits(case.divergence, student.to(dtype), teacher.to(dtype), 1.0)
        exact = on_logits(
            case.divergence, student.to(dtype).double(), teacher.to(dtype).double(), 1.0
        )
        assert found.dtype == wide
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)


def test_the_ends_of_jsd_are_limits_of_the_formula_over_its_scale() -> None:
    log_p, log_q = draw(K, V, seed=2).log_softmax(-1), draw(K, V, seed=1).log_softmax(-1)
    near = 1e-6
    torch.testing.assert_close(
        jsd(near)(log_p, log_q) / near, jsd(0.0)(log_p, log_q), rtol=1e-4, atol=1e-7
    )
    torch.testing.assert_close(
        jsd(1 - near)(log_p, log_q) / near, jsd(1.0)(log_p, log_q), rtol=1e-4, atol=1e-7
    )


def test_skewed_towards_itself_a_divergence_goes_to_nothing() -> None:
    log_p, log_q = draw(K, V, seed=2).log_softmax(-1), draw(K, V, seed=1).log_softmax(-1)
    for kind in ("skew_kl", "skew_reverse_kl"):
        case = Case({"kind": kind, "alpha": 1 - 1e-9}, lambda p, q: 0.0, 0.0)
        assert case.divergence(log_p, log_q).abs().max().item() < 1e-8


def test_row_weights_scale_positions_and_not_the_count() -> None:
    hidden, head, targets = draw(4, D), Head(draw(V, D, seed=2)), torch.arange(4)
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    term = cross_entropy_term(targets)
    each = torch.stack(
        [
            head_loss(
                hidden[i : i + 1], head, {"c": (1.0, cross_entropy_term(targets[i : i + 1]))}, 1.0
            )[0]
            for i in range(4)
        ]
    )
    loss, _ = head_loss(hidden, head, {"c": (1.0, weighted(term, weights))}, 4.0, 3)
    assert loss.item() == pytest.approx((each * weights).sum().item() / 4, rel=1e-12)
