"""SVD with and without whitening against closed forms and brute force."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from tests.trainer.compress.families import FAMILIES, make
from tests.trainer.compress.models import logits, saved, tiny_llama, token_rows
from tests.trainer.compress.test_anatomy import phi3
from trainer.compress import factors, moments, svd
from trainer.compress.layout import find_layers, pick_linears
from trainer.compress.moments import damped_cholesky, gram_matrices
from trainer.compress.ranks import rank_for
from trainer.compress.size import measure_shape
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.spec import SvdFactorize


def problem(tokens: int = 200, m: int = 7, n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [m, n] and inputs [N, n] whose directions have very different sizes."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(m, n, dtype=torch.float64, generator=generator)
    mix = torch.randn(n, n, dtype=torch.float64, generator=generator)
    mix *= torch.logspace(0, -2, n, dtype=torch.float64)
    return weight, torch.randn(tokens, n, dtype=torch.float64, generator=generator) @ mix.T


def whitening(x: torch.Tensor) -> factors.Scale:
    return factors.Scale(square=x.T @ x)


def test_plain_error_is_the_tail_of_the_singular_values() -> None:
    weight, _ = problem()
    values = torch.linalg.svdvals(weight)
    for rank in range(1, 8):
        left, right = factors.factorize_plain(weight, rank)
        error = torch.linalg.matrix_norm(weight - left @ right)
        assert float(error) == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-12)


@pytest.mark.parametrize("shape", [(7, 9), (9, 7)])
def test_whitened_truncation_is_the_best_of_its_rank_on_the_data(shape: tuple[int, int]) -> None:
    """min over rank-r W' of |(W - W') X^T| is the tail of the singular values of W X^T."""
    weight, x = problem(200, *shape)
    scale = whitening(x)
    values = torch.linalg.svdvals(weight @ x.T)
    assert torch.allclose(factors.singular_values(weight, scale)[:5], values[:5], rtol=1e-3)
    for rank in range(1, 7):
        left, right = factors.factorize(weight, scale, rank)
        error = torch.linalg.matrix_norm((weight - left @ right) @ x.T)
        assert float(error) == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-3)
        plain_left, plain_right = factors.factorize_plain(weight, rank)
        plain = torch.linalg.matrix_norm((weight - plain_left @ plain_right) @ x.T)
        assert error < plain


def test_linears_that_read_one_tensor_share_one_scale_and_wide_ones_need_no_factor_of_it() -> None:
    _, x = problem()
    found = moments.Moments(x.T @ x, x.abs().mean(dim=0), x.abs().amax(dim=0))
    stage = SvdFactorize(kind="svd", scaling="whitening")
    scales = factors.make_scales(stage, {"q": found, "k": found, "o": replace(found)})
    assert scales["q"] is scales["k"] is not scales["o"]
    factors.factorize(torch.ones(7, 9, dtype=torch.float64), scales["q"], 3)
    assert scales["q"].damping == 0.0
    factors.factorize(torch.ones(11, 9, dtype=torch.float64), scales["q"], 3)
    assert scales["q"].damping == moments.DAMPING


def test_no_descent_from_it_finds_anything_better() -> None:
    weight, x = problem()
    left, right = factors.factorize(weight, whitening(x), 3)
    reached = torch.linalg.matrix_norm((weight - left @ right) @ x.T)
    pair = [left.clone().requires_grad_(), right.clone().requires_grad_()]
    optimizer = torch.optim.Adam(pair, lr=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.linalg.matrix_norm((weight - pair[0] @ pair[1]) @ x.T)
        loss.backward()
        optimizer.step()
        assert float(loss.detach()) >= float(reached) * (1 - 1e-4)


def test_full_rank_changes_nothing() -> None:
    weight, x = problem()
    for left, right in (
        factors.factorize_plain(weight, 7),
        factors.factorize(weight, whitening(x), 7),
    ):
        assert torch.allclose(left @ right, weight, atol=1e-9)


def test_whitening_holds_for_inputs_that_span_too_little() -> None:
    """Two tokens in nine dimensions: X^T X is singular."""
    _, x = problem(tokens=2)
    lower, damping = damped_cholesky(x.T @ x)
    assert torch.isfinite(lower).all()
    assert torch.allclose(lower @ lower.T, x.T @ x, atol=1e-4)
    assert damping == moments.DAMPING
    assert torch.isfinite(damped_cholesky(torch.zeros(4, 4, dtype=torch.float64))[0]).all()


def test_statistics_that_are_not_positive_definite_get_more_damping_and_that_is_told() -> None:
    gram = torch.diag(torch.tensor([1.0, 1.0, -0.05], dtype=torch.float64))
    lower, damping = damped_cholesky(gram)
    assert torch.isfinite(lower).all()
    assert damping == pytest.approx(0.1)


@pytest.mark.timeout(20)
def test_statistics_that_no_damping_helps_are_refused() -> None:
    """And one too small to be felt is raised to where it is."""
    gram = torch.diag(torch.tensor([1.0, 1.0, -0.05], dtype=torch.float64))
    assert damped_cholesky(gram, 1e-300)[1] < 1
    for hopeless, damping in ((gram, math.inf), (1e308 * gram.abs(), 1e300)):
        with pytest.raises(BadInput, match="calibration rows"):
            damped_cholesky(hopeless, damping)


def test_rank_keeps_the_ratio_of_parameters() -> None:
    for shape in ((128, 128), (384, 128), (64, 128)):
        m, n = shape
        rank = rank_for("w", shape, 0.6)
        assert rank * (m + n) <= 0.6 * m * n < (rank + 1) * (m + n)


def test_a_ratio_that_leaves_no_rank_is_refused() -> None:
    with pytest.raises(BadInput, match="no rank"):
        rank_for("up_proj", (8, 8), 0.1)


def test_gram_matrices_are_shared_where_inputs_are() -> None:
    model, rows = tiny_llama(), token_rows()
    layer = find_layers(model).layers[1]
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    grams = gram_matrices(model, pick_linears(layer, names), rows, layer)
    same = {frozenset(n for n in grams if grams[n] is gram) for gram in grams.values()}
    attention = frozenset(f"self_attn.{name}_proj" for name in "qkv")
    mlp = frozenset({"mlp.gate_proj", "mlp.up_proj"})
    assert same == {attention, mlp, frozenset({"self_attn.o_proj"}), frozenset({"mlp.down_proj"})}
    alone = {"self_attn.v_proj": layer.self_attn.v_proj}
    expected = gram_matrices(model, alone, rows, layer)["self_attn.v_proj"]
    assert torch.allclose(grams["self_attn.v_proj"], expected)


def test_a_factorized_model_computes_with_its_factors() -> None:
    """Logits equal the dense model's with left @ right put in place of each weight."""
    stage, rows, dense = SvdFactorize(kind="svd", parameter_ratio=0.7), token_rows(), tiny_llama()
    factorized = svd.apply(stage, tiny_llama(), rows).model
    with torch.no_grad():
        for name in factorized.config.ranks:
            pair = factorized.model.get_submodule(name)
            dense.model.get_submodule(name).weight.copy_(pair.left.weight @ pair.right.weight)
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
    assert not torch.allclose(logits(made(scaling="none")), logits(first), atol=1e-3)
    assert set(made(targets=("up_proj",)).config.ranks) == {
        f"layers.{i}.mlp.up_proj" for i in range(3)
    }
    smaller = made(parameter_ratio=0.3)
    assert all(smaller.config.ranks[n] < rank for n, rank in first.config.ranks.items())


def test_whitening_is_never_worse_than_plain_on_the_calibration_rows() -> None:
    rows = token_rows()
    whitened, plain = (
        svd.apply(SvdFactorize(kind="svd", scaling=kind), tiny_llama(), rows).details["linears"]
        for kind in ("whitening", "none")
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
    with pytest.raises(BadInput, match="there is one for llama, mistral"):
        svd.apply(SvdFactorize(kind="svd"), other, token_rows())


def test_asvd_scales_columns_by_their_mean_activation() -> None:
    """W' diag(d^alpha) is the truncated SVD of W diag(d^alpha), worked out densely."""
    weight, x = problem()
    stage = SvdFactorize(kind="svd", scaling="activation", alpha=0.7)
    found = moments.Moments(x.T @ x, x.abs().mean(dim=0), x.abs().amax(dim=0))
    left, right = factors.factorize(weight, factors.make_scale(stage, found), 3)
    d = torch.diag(x.abs().mean(dim=0) ** 0.7)
    u, values, vt = torch.linalg.svd(weight @ d)
    expected = u[:, :3] @ torch.diag(values[:3]) @ vt[:3] @ torch.linalg.inv(d)
    assert torch.allclose(left @ right, expected, atol=1e-9)


def test_scalings_beat_the_plain_floor_on_correlated_inputs() -> None:
    """Inputs of very different sizes, correlated too: a diagonal sees the first, S both."""
    weight, x = problem()
    x = (x + 0.3 * x.roll(1, dims=1)) * torch.logspace(0, -2, 9, dtype=torch.float64)
    found = moments.Moments(x.T @ x, x.abs().mean(dim=0), x.abs().amax(dim=0))
    errors = {}
    for scaling in ("none", "activation", "whitening"):
        scale = factors.make_scale(SvdFactorize(kind="svd", scaling=scaling), found)
        left, right = factors.factorize(weight, scale, 3)
        errors[scaling] = factors.relative_error(weight, left @ right, found.gram)
    assert errors["whitening"] <= errors["activation"] <= errors["none"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_computes_with_its_factors_and_loads_again(family: str, tmp_path: Path) -> None:
    stage = SvdFactorize(kind="svd", targets=("q_proj", "k_proj", "down_proj"))
    made, dense = svd.apply(stage, make(family), token_rows(4)).model, make(family)
    with torch.no_grad():
        for name in made.config.ranks:
            pair = made.model.get_submodule(name)
            dense.model.get_submodule(name).weight.copy_(pair.left.weight @ pair.right.weight)
    assert torch.allclose(logits(made), logits(dense), atol=1e-4)
    loaded = load_model(saved(made, tmp_path))
    assert torch.equal(logits(loaded), logits(made))
    assert not torch.allclose(logits(made), logits(make(family)), atol=1e-2)


def test_families_without_a_factorized_type_are_refused() -> None:
    with pytest.raises(BadInput, match="a phi3 model can't be factorized"):
        svd.apply(SvdFactorize(kind="svd"), phi3(), token_rows(2))


def test_a_budget_in_bytes_is_met_by_the_file(tmp_path: Path) -> None:
    dense = measure_shape(saved(tiny_llama(), tmp_path / "d")).weight_bytes
    for share, ranks in ((0.7, "uniform"), (0.5, "by_loss")):
        stage = SvdFactorize(kind="svd", max_bytes=int(share * dense), ranks=ranks)
        made = svd.apply(stage, tiny_llama(), token_rows(4))
        found = measure_shape(saved(made.model, tmp_path / ranks)).weight_bytes
        assert (share - 0.08) * dense < found <= share * dense
    with pytest.raises(BadInput, match=r"max_bytes \d+ can't be met"):
        svd.apply(SvdFactorize(kind="svd", max_bytes=2 * dense), tiny_llama(), token_rows(2))


def test_ranks_by_loss_lose_no_more_than_uniform_ones_of_equal_size() -> None:
    stage = SvdFactorize(kind="svd", ranks="by_loss", parameter_ratio=0.5)
    details = svd.apply(stage, tiny_llama(), token_rows()).details
    assert details["loss_beside_uniform"] <= 1.0
    assert len({fields["rank"] for fields in details["linears"].values()}) > 2
    assert details["parameter_ratio"] <= 0.5


def test_a_bound_on_the_error_is_kept_with_the_fewest_ranks() -> None:
    sizes = {}
    for bound in (0.2, 0.4):
        stage = SvdFactorize(kind="svd", ranks="by_loss", max_relative_error=bound)
        details = svd.apply(stage, tiny_llama(), token_rows(4)).details
        errors = [fields["relative_error"] ** 2 for fields in details["linears"].values()]
        assert np.mean(errors) ** 0.5 <= bound * 1.01
        sizes[bound] = details["parameters_by_loss"]
    assert sizes[0.4] < sizes[0.2]


def test_one_pass_serves_every_stage_on_one_model() -> None:
    model, rows, shared = tiny_llama(), token_rows(4), moments.Shared()
    for scaling in ("whitening", "activation"):
        stage = SvdFactorize(kind="svd", scaling=scaling, ranks="by_loss")
        alone = svd.apply(stage, model, rows).details
        assert svd.apply(stage, model, rows, shared.of("a")).details == alone
    assert shared.passes == 1
    list(shared.of("b")(model, rows))
    assert shared.passes == 2
    small = moments.Shared(limit_bytes=1)
    for _ in range(2):
        list(small.of("a")(model, rows))
    assert small.passes == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_bytes": 5, "max_relative_error": 0.1}, "give one of"),
        ({"max_bytes": 5, "parameter_ratio": 0.5}, "give one of"),
        ({"max_relative_error": 0.1}, "set ranks: by_loss"),
        ({"max_loss_increase": 0.1}, "set ranks: by_loss"),
        ({"max_loss_increase": 0.1, "max_bytes": 5, "ranks": "by_loss"}, "give one of"),
        ({"alpha": 0.2}, "scaling: activation alone"),
        ({"parameter_ratio": 1.0}, "less than 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SvdFactorize(kind="svd", **fields)
