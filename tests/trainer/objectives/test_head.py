"""The chunked head against the dense one, in fp64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.objectives.cases import draw
from trainer.objectives import (
    Head,
    cross_entropy,
    cross_entropy_term,
    divergence_term,
    forward_kl,
    head_loss,
    keep,
    upcast,
)
from trainer.objectives.divergences import forward

K, V, D = 11, 7, 5


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    assert cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(math.log(4))


def loss_of(
    hidden: Tensor, head: Head, teacher: Tensor, chunk: int | None, count: float = 4.0
) -> Tensor:
    terms = {
        "forward_kl": (0.7, divergence_term(forward, teacher, Head(draw(V, 3, seed=5)), 2.0)),
        "cross_entropy": (0.3, cross_entropy_term(torch.arange(K) % V)),
    }
    return head_loss(hidden, head, terms, count, chunk)[0]


def test_the_chunked_head_equals_the_dense_one_with_its_gradients() -> None:
    teacher = draw(K, 3, seed=4)
    inputs = [draw(K, D, seed=1), draw(V, D, seed=2), draw(V, seed=3)]
    ours = [t.clone().requires_grad_() for t in inputs]
    loss_of(ours[0], Head(ours[1], ours[2]), teacher, chunk=4).backward()

    dense = [t.clone().requires_grad_() for t in inputs]
    logits = dense[0] @ dense[1].T + dense[2]
    log_q = torch.log_softmax(logits / 2, -1)
    log_p = torch.log_softmax(teacher @ draw(V, 3, seed=5).T / 2, -1)
    kl = 4 * (log_p.exp() * (log_p - log_q)).sum()
    hard = -torch.log_softmax(logits, -1)[torch.arange(K), torch.arange(K) % V].sum()
    expected = (0.7 * kl + 0.3 * hard) / 4.0
    expected.backward()

    assert loss_of(*ours[:1], Head(ours[1], ours[2]), teacher, 4).item() == pytest.approx(
        expected.item(), rel=1e-12
    )
    for mine, theirs in zip(ours, dense, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_agree_with_finite_differences(bias: bool) -> None:
    teacher = draw(K, 3, seed=4)
    hidden, weight = draw(K, D, seed=1).requires_grad_(), draw(V, D, seed=2).requires_grad_()
    shift = (draw(V, seed=3).requires_grad_(),) if bias else ()
    assert torch.autograd.gradcheck(
        lambda h, w, *b: loss_of(h, Head(w, *b), teacher, chunk=3), (hidden, weight, *shift)
    )


def test_a_soft_cap_is_part_of_the_logits_and_of_the_gradient() -> None:
    teacher, cap = draw(K, 3, seed=4), 0.8
    hidden, weight = draw(K, D, seed=1).requires_grad_(), draw(V, D, seed=2).requires_grad_()
    logits = cap * torch.tanh(hidden @ weight.T / cap)
    as_is = loss_of(logits, Head(torch.eye(V, dtype=torch.float64)), teacher, None)
    assert loss_of(hidden, Head(weight, None, cap), teacher, 4).item() == pytest.approx(
        as_is.item(), rel=1e-12
    )
    assert torch.autograd.gradcheck(
        lambda h, w: loss_of(h, Head(w, None, cap), teacher, chunk=3), (hidden, weight)
    )


@pytest.mark.parametrize("chunk", [1, 2, 5, K, 100, None])
def test_chunks_change_nothing(chunk: int | None) -> None:
    whole = [draw(K, D, seed=1).requires_grad_(), draw(V, D, seed=2).requires_grad_()]
    parts = [t.detach().clone().requires_grad_() for t in whole]
    teacher = draw(K, 3, seed=4)
    first = loss_of(whole[0], Head(whole[1]), teacher, chunk=K)
    second = loss_of(parts[0], Head(parts[1]), teacher, chunk=chunk)
    first.backward()
    second.backward()
    assert second.item() == pytest.approx(first.item(), rel=1e-13)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-13)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = draw(K, D).requires_grad_()
    weight = draw(V, D)
    head_loss(hidden, Head(weight), {"ce": (1.0, cross_entropy_term(torch.zeros(K).long()))}, 1.0)[
        0
    ].backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_the_gradient_from_above_scales_it() -> None:
    grads = []
    for factor in (1.0, 2.5):
        hidden = draw(K, D).requires_grad_()
        (loss_of(hidden, Head(draw(V, D, seed=2)), draw(K, 3), None) * factor).backward()
        grads.append(hidden.grad)
    assert grads[0] is not None
    torch.testing.assert_close(grads[0] * 2.5, grads[1])


def test_no_kept_token_gives_zero_with_a_gradient() -> None:
    hidden, weight = draw(0, D).requires_grad_(), draw(V, D).requires_grad_()
    terms = {"cross_entropy": (1.0, cross_entropy_term(torch.zeros(0, dtype=torch.long)))}
    loss, metrics = head_loss(hidden, Head(weight), terms, 1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert metrics["cross_entropy"].item() == 0.0
    assert weight.grad is not None
    assert weight.grad.abs().max().item() == 0.0


def test_terms_are_reported_apart_and_unweighted() -> None:
    hidden, head = draw(K, D), Head(draw(V, D, seed=2))
    targets = torch.arange(K) % V
    _, metrics = head_loss(hidden, head, {"ce": (0.25, cross_entropy_term(targets))}, 2.0)
    expected = cross_entropy(head.logits(hidden), targets).sum() / 2
    assert metrics["ce"].item() == pytest.approx(expected.item())


def test_heads_padded_to_different_sizes_are_compared_on_what_they_share() -> None:
    hidden, teacher = draw(K, D), draw(K, 3, seed=4)
    weight, teacher_weight = draw(V, D, seed=2), draw(V + 3, 3, seed=5)
    padded = divergence_term(forward, teacher, Head(teacher_weight), 1.0)
    exact = divergence_term(forward, teacher, Head(teacher_weight[:V]), 1.0)
    first, _ = head_loss(hidden, Head(weight), {"kl": (1.0, padded)}, 1.0)
    second, _ = head_loss(hidden, Head(weight), {"kl": (1.0, exact)}, 1.0)
    assert first.item() == pytest.approx(second.item())


def test_under_autocast_the_head_is_cast_once_for_all_chunks() -> None:
    """Autocast keeps each cast of what wants a gradient: one a chunk would grow with the tokens."""

    class Casts(TorchDispatchMode):
        made = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = func(*args, **(kwargs or {}))
            cast = "_to_copy" in str(func) and found.dtype == torch.bfloat16
            self.made += cast and found.shape == (V, D)
            return found

    whole: list[Tensor] = []
    for chunk in (None, 2):
        inputs = [draw(*shape, seed=1).float() for shape in ((K, D), (V, D), (V,))]
        hidden, weight, bias = (t.requires_grad_() for t in inputs)
        terms = {"cross_entropy": (1.0, cross_entropy_term(torch.arange(K) % V))}
        with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as casts:
            loss, _ = head_loss(hidden, Head(weight, bias), terms, 4.0, chunk)
        loss.backward()
        assert casts.made == 1
        grads = [t.grad for t in inputs if t.grad is not None]
        assert [one.dtype for one in grads] == [torch.float32] * 3
        for ours, theirs in zip(grads, whole or grads, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
        whole = grads


def test_where_no_gradient_is_wanted_none_is_made() -> None:
    """Of a validation: autograd.Function sees parameters that want one, whatever the mode is."""

    class Made(TorchDispatchMode):
        products, of_the_heads_shape = 0, 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = func(*args, **(kwargs or {}))
            self.products += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
            fresh = func in (torch.ops.aten.zeros_like.default, torch.ops.aten.mm.default)
            self.of_the_heads_shape += fresh and found.shape == (V, D)
            return found

    hidden, weight = draw(K, D, seed=1), draw(V, D, seed=2).requires_grad_()
    terms = {"cross_entropy": (1.0, cross_entropy_term(torch.arange(K) % V))}
    with torch.no_grad(), Made() as made:
        loss, metrics = head_loss(hidden, Head(weight), terms, 4.0, chunk=4)
    assert (made.products, made.of_the_heads_shape) == (3, 0)  # one for each chunk's logits
    learnt, _ = head_loss(hidden, Head(weight), terms, 4.0, chunk=4)
    assert learnt.requires_grad
    assert not loss.requires_grad
    assert loss.item() == learnt.item()
    assert metrics["cross_entropy"].item() == learnt.item()


def test_16_bits_are_widened_and_nothing_is_narrowed() -> None:
    assert upcast(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert upcast(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert upcast(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    logits = draw(K, V).bfloat16()
    assert cross_entropy(logits, torch.zeros(K).long()).dtype == torch.float32
    assert forward_kl(logits, logits, 1.0).dtype == torch.float32


def test_targets_are_shifted_by_one_and_only_masked_ones_are_kept() -> None:
    hidden = torch.arange(8.0).reshape(1, 8, 1)
    ids = torch.arange(10, 18).reshape(1, 8)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    kept, targets = keep(hidden, ids, mask)
    assert kept.squeeze(1).tolist() == [2.0, 3.0, 4.0]
    assert targets.tolist() == [13, 14, 15]
