"""Bytes: numbers times their bits over 8, scales included."""

from pathlib import Path

import pytest
import torch

from tests.trainer.compress.models import saved, tiny_llama, token_rows
from trainer.compress import svd, wanda
from trainer.compress.size import measure_shape, tensor_bytes
from trainer.errors import BadInput
from trainer.spec import SvdFactorize, WandaPrune

HEADER_BYTES = 8192


def test_parameters_and_bytes_of_a_tied_model(tmp_path: Path) -> None:
    model = tiny_llama()
    shape = measure_shape(saved(model.to(torch.bfloat16), tmp_path))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.layers == 3
    assert sum(tensor_bytes(tmp_path).values()) == 2 * shape.parameters
    assert 0 < shape.weight_bytes - 2 * shape.parameters < HEADER_BYTES


def test_a_mask_changes_the_nonzero_count_alone(tmp_path: Path) -> None:
    before = measure_shape(saved(tiny_llama(), tmp_path / "a"))
    outcome = wanda.apply(WandaPrune(kind="wanda", sparsity=0.75), tiny_llama(), token_rows())
    after = measure_shape(saved(outcome.model, tmp_path / "b"))
    assert (after.parameters, after.weight_bytes) == (before.parameters, before.weight_bytes)
    pruned = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3)
    assert before.nonzero - after.nonzero == pytest.approx(0.75 * pruned)


def test_factors_take_r_times_m_plus_n(tmp_path: Path) -> None:
    stage = SvdFactorize(kind="svd", targets=("up_proj",), parameter_ratio=0.5)
    model = svd.apply(stage, tiny_llama(), token_rows()).model
    before = measure_shape(saved(tiny_llama(), tmp_path / "a")).parameters
    after = measure_shape(saved(model, tmp_path / "b")).parameters
    rank = int(0.5 * 96 * 64 / (96 + 64))
    assert before - after == 3 * (96 * 64 - rank * (96 + 64))


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no safetensors"):
        measure_shape(tmp_path)
