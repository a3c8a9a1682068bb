"""SVD with and without whitening against closed forms and brute force."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.trainer.compress.models import logits, tiny_llama, token_rows
from trainer.compress import svd
from trainer.compress.layout import find_layers, pick_linears
from trainer.errors import BadInput
from trainer.spec import SvdFactorize


def problem(tokens: int = 200, m: int = 7, n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [m, n] and inputs [N, n] whose directions have very different sizes."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(m, n, dtype=torch.float64, generator=generator)
    mix = torch.randn(n, n, dtype=torch.float64, generator=generator)
    mix *= torch.logspace(0, -2, n, dtype=torch.float64)
    return weight, torch.randn(tokens, n, dtype=torch.float64, generator=generator) @ mix.T


def test_plain_error_is_the_tail_of_the_singular_values() -> None:
    weight, _ = problem()
    values = torch.linalg.svdvals(weight)
    for rank in range(1, 8):
        left, right = svd.factorize_plain(weight, rank)
        error = torch.linalg.matrix_norm(weight - left @ right)
        assert float(error) == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-12)


def test_whitened_truncation_is_the_best_of_its_rank_on_the_data() -> None:
    """min over rank-r W' of |(W - W') X^T| is the tail of the singular values of W X^T."""
    weight, x = problem()
    whitener = svd.whitening(x.T @ x)
    values = torch.linalg.svdvals(weight @ x.T)
    for rank in range(1, 7):
        left, right = svd.factorize_whitened(weight, whitener, rank)
        error = torch.linalg.matrix_norm((weight - left @ right) @ x.T)
        assert float(error) == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-3)
        plain_left, plain_right = svd.factorize_plain(weight, rank)
        plain = torch.linalg.matrix_norm((weight - plain_left @ plain_right) @ x.T)
        assert error < plain


def test_no_descent_from_it_finds_anything_better() -> None:
    weight, x = problem()
    left, right = svd.factorize_whitened(weight, svd.whitening(x.T @ x), 3)
    reached = torch.linalg.matrix_norm((weight - left @ right) @ x.T)
    factors = [left.clone().requires_grad_(), right.clone().requires_grad_()]
    optimizer = torch.optim.Adam(factors, lr=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.linalg.matrix_norm((weight - factors[0] @ factors[1]) @ x.T)
        loss.backward()
        optimizer.step()
        assert float(loss.detach()) >= float(reached) * (1 - 1e-4)


def test_full_rank_changes_nothing() -> None:
    weight, x = problem()
    for left, right in (
        svd.factorize_plain(weight, 7),
        svd.factorize_whitened(weight, svd.whitening(x.T @ x), 7),
    ):
        assert torch.allclose(left @ right, weight, atol=1e-9)


def test_whitening_holds_for_inputs_that_span_too_little() -> None:
    """Two tokens in nine dimensions: X^T X is singular."""
    _, x = problem(tokens=2)
    lower = svd.whitening(x.T @ x)
    assert torch.isfinite(lower).all()
    assert torch.allclose(lower @ lower.T, x.T @ x, atol=1e-4)
    assert torch.isfinite(svd.whitening(torch.zeros(4, 4, dtype=torch.float64))).all()


def test_rank_keeps_the_ratio_of_parameters() -> None:
    for shape in ((128, 128), (384, 128), (64, 128)):
        m, n = shape
        rank = svd.rank_for("w", shape, 0.6)
        assert rank * (m + n) <= 0.6 * m * n < (rank + 1) * (m + n)


def test_a_ratio_that_leaves_no_rank_is_refused() -> None:
    with pytest.raises(BadInput, match="no rank"):
        svd.rank_for("up_proj", (8, 8), 0.1)


def test_gram_matrices_are_shared_where_inputs_are() -> None:
    model, rows = tiny_llama(), token_rows()
    layer = find_layers(model).layers[1]
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    grams = svd.gram_matrices(model, pick_linears(layer, names), rows, layer)
    same = {frozenset(n for n in grams if grams[n] is gram) for gram in grams.values()}
    attention = frozenset(f"self_attn.{name}_proj" for name in "qkv")
    mlp = frozenset({"mlp.gate_proj", "mlp.up_proj"})
    assert same == {attention, mlp, frozenset({"self_attn.o_proj"}), frozenset({"mlp.down_proj"})}
    alone = {"self_attn.v_proj": layer.self_attn.v_proj}
    expected = svd.gram_matrices(model, alone, rows, layer)["self_attn.v_proj"]
    assert torch.allclose(grams["self_attn.v_proj"], expected)


def test_a_factorized_model_computes_with_its_factors() -> None:
    """Logits equal the dense model's with left @ right put in place of each weight."""
    stage, rows, dense = SvdFactorize(kind="svd", parameter_ratio=0.7), token_rows(), tiny_llama()
    factorized = svd.apply(stage, tiny_llama(), rows).model
    with torch.no_grad():
        for name in factorized.config.ranks:
            factors = factorized.model.get_submodule(name)
            dense.model.get_submodule(name).weight.copy_(factors.left.weight @ factors.right.weight)
    assert torch.allclose(logits(factorized), logits(dense), atol=1e-4)
    assert not torch.allclose(logits(factorized), logits(tiny_llama()), atol=1e-2)


def test_biases_stay_with_the_left_factor() -> None:
    model = tiny_llama(mlp_bias=True)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.bias.fill_(0.5)
    made = svd.apply(SvdFactorize(kind="svd"), model, token_rows()).model
    assert (made.model.layers[0].mlp.up_proj.left.bias == 0.5).all()


def test_whitening_and_targets_and_ratio_each_matter() -> None:
    rows = token_rows()

    def made(**fields: object) -> torch.nn.Module:
        return svd.apply(SvdFactorize(kind="svd", **fields), tiny_llama(), rows).model

    first = made()
    assert not torch.allclose(logits(made(whitening=False)), logits(first), atol=1e-3)
    assert set(made(targets=("up_proj",)).config.ranks) == {
        f"layers.{i}.mlp.up_proj" for i in range(3)
    }
    smaller = made(parameter_ratio=0.3)
    assert all(smaller.config.ranks[n] < rank for n, rank in first.config.ranks.items())


def test_whitening_is_never_worse_than_plain_on_the_calibration_rows() -> None:
    rows = token_rows()
    whitened, plain = (
        svd.apply(SvdFactorize(kind="svd", whitening=on), tiny_llama(), rows).details["linears"]
        for on in (True, False)
    )
    for name in whitened:
        assert whitened[name]["relative_error"] <= plain[name]["relative_error"] + 1e-9
    gains = [plain[n]["relative_error"] - whitened[n]["relative_error"] for n in whitened]
    assert np.mean(gains) > 0.005


def test_more_calibration_rows_matter() -> None:
    few, many = (
        svd.apply(SvdFactorize(kind="svd"), tiny_llama(), token_rows(count)).model
        for count in (2, 12)
    )
    assert not torch.allclose(logits(few), logits(many), atol=1e-3)


def test_unknown_targets_and_types_are_refused() -> None:
    with pytest.raises(BadInput, match="no linear named gone_proj"):
        svd.apply(SvdFactorize(kind="svd", targets=("gone_proj",)), tiny_llama(), token_rows())
    once = svd.apply(SvdFactorize(kind="svd"), tiny_llama(), token_rows()).model
    with pytest.raises(BadInput, match="factorized already"):
        svd.apply(SvdFactorize(kind="svd"), once, token_rows())
    other = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=2))
    with pytest.raises(BadInput, match="there is one for llama"):
        svd.apply(SvdFactorize(kind="svd"), other, token_rows())
