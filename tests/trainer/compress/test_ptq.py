"""Quantization: what is stored, and that it computes what int8 would."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.compress.models import logits, token_rows
from tests.trainer.compress.world import make_llama, write_model
from tests.trainer.conftest import save_model
from trainer.compress import ptq, svd
from trainer.compress.size import measure_shape, tensor_bytes
from trainer.loading import load_model
from trainer.spec import QuantizePtq, SvdFactorize

pytestmark = [
    pytest.mark.slow,
    # llmcompressor saves through accelerate's hooks, which suppose that weights lie elsewhere
    pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules"),
]


def quantize(source: Path, target: Path, **fields: Any) -> Path:
    outcome = ptq.apply(QuantizePtq(kind="ptq", **fields), load_model(source), token_rows(6))
    outcome.model.save_pretrained(target)
    return target


def test_rtn_stores_rounded_channels_and_their_scales(tmp_path: Path) -> None:
    source = write_model(tmp_path / "m")
    target = quantize(source, tmp_path / "q", algorithm="rtn")
    before, after = load_model(source), load_model(target)
    weight = before.model.layers[1].mlp.up_proj.weight.float()
    made = after.model.layers[1].mlp.up_proj.weight.float()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127.5
    assert ((weight - made).abs() <= 0.52 * scale + 0.01 * weight.abs()).all()
    assert torch.equal(after.lm_head.weight, before.lm_head.weight)
    linears = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3)
    channels = 3 * (64 * 2 + 32 * 2 + 96 * 2 + 64)
    sizes = tensor_bytes(target)
    rest = measure_shape(source).parameters - linears
    assert sum(sizes.values()) == linears + 2 * channels + 2 * rest
    assert measure_shape(target).parameters == measure_shape(source).parameters


def test_activations_are_rounded_per_token(tmp_path: Path) -> None:
    linear = load_model(quantize(write_model(tmp_path / "m"), tmp_path / "q", algorithm="rtn"))
    layer = linear.model.layers[0].mlp.up_proj
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    exact = torch.nn.functional.linear(x, layer.weight)
    assert not torch.equal(layer(x), exact)
    assert torch.allclose(layer(x), exact, atol=0.2)


def test_gptq_differs_from_rtn_and_both_stay_near(tmp_path: Path) -> None:
    source = write_model(tmp_path / "m")
    dense = logits(load_model(source))
    rtn, gptq = (
        logits(load_model(quantize(source, tmp_path / name, algorithm=name)))
        for name in ("rtn", "gptq")
    )
    assert not torch.equal(rtn, gptq)
    for quantized in (rtn, gptq):
        assert 0 < float((quantized - dense).abs().mean()) < 0.1 * float(dense.std())


def test_factors_are_quantized_and_load_again(tmp_path: Path) -> None:
    factorized = svd.apply(SvdFactorize(kind="svd"), make_llama(), token_rows()).model
    source = save_model(tmp_path / "m", factorized.to(torch.bfloat16))
    target = quantize(source, tmp_path / "q", algorithm="rtn")
    stored = tensor_bytes(target)
    name = "model.layers.0.mlp.up_proj.left.weight"
    assert stored[name] == load_model(source).model.layers[0].mlp.up_proj.left.weight.numel()
    near, dense = logits(load_model(target)), logits(load_model(source))
    assert 0 < float((near - dense).abs().mean()) < 0.1 * float(dense.std())


def test_nothing_is_printed_on_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output is for events; and no log files appear where one happens to stand."""
    source = write_model(tmp_path / "m")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    capfd.readouterr()
    quantize(source, tmp_path / "q", algorithm="rtn")
    assert capfd.readouterr().out == ""
    assert not list((tmp_path / "here").iterdir())
