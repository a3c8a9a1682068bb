"""Ranks searched for a bound on the model's own loss."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from tests.trainer.compress.models import tiny_llama
from trainer.compress import svd
from trainer.compress.activations import batches
from trainer.compress.likelihood import mean_loss
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import SvdFactorize


def own_rows(model: LlamaForCausalLM, count: int = 12) -> list[TokenRow]:
    """What the model itself would write: any change of it then costs likelihood."""
    torch.manual_seed(0)
    ids = torch.full((count, 1), 5)
    made = model.generate(ids, max_new_tokens=20, do_sample=True, top_k=0, eos_token_id=None)
    return [TokenRow(f"r{i}", row.numpy().astype(np.int32), 1) for i, row in enumerate(made)]


def searched(bound: float, scaling: str = "whitening") -> SvdFactorize:
    return SvdFactorize(kind="svd", ranks="by_loss", max_loss_increase=bound, scaling=scaling)


def test_the_loss_is_the_models_own_over_the_completions() -> None:
    model = tiny_llama()
    rows = own_rows(model, 3)
    rows[1:] = [TokenRow("short", rows[1].ids[:9], 1), TokenRow("prompt", rows[2].ids, 7)]
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        with torch.no_grad():
            found = model(ids).logits[0, :-1].log_softmax(-1)
        total -= float(found.gather(1, ids[0, 1:, None])[row.prompt_tokens - 1 :].sum())
        tokens += row.completion_tokens
    assert len(batches(rows, model.device)) == 1
    assert mean_loss(model, rows) == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize(("scaling", "bounds"), [("whitening", (0.1, 0.4)), ("none", (0.6, 1.0))])
def test_the_bound_is_kept_and_a_tenth_fewer_would_break_it(
    scaling: str, bounds: tuple[float, float]
) -> None:
    model = tiny_llama()
    rows = own_rows(model)
    before, spent = mean_loss(model, rows), []
    for bound in bounds:
        made = svd.apply(searched(bound, scaling), model, rows)
        details, after = made.details, mean_loss(made.model, rows)
        assert details["loss_before"] == pytest.approx(before, abs=1e-6)
        assert details["loss_after"] == pytest.approx(after, abs=1e-4)
        assert after <= before + bound + 1e-4
        assert mean_loss(model, rows) == before  # the weights are put back
        spent.append(details["parameters_by_loss"])
        fewer = SvdFactorize(
            kind="svd",
            ranks="by_loss",
            scaling=scaling,
            parameter_ratio=0.9 * details["parameter_ratio"],
        )
        assert mean_loss(svd.apply(fewer, model, rows).model, rows) > before + bound
    assert spent[1] < spent[0]


def test_a_bound_that_no_rank_keeps_is_refused() -> None:
    model = tiny_llama()
    rows = own_rows(model)
    with pytest.raises(BadInput, match="no ranks keep the loss within max_loss_increase 1e-06"):
        svd.apply(searched(1e-6), model, rows)
