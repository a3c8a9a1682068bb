"""Quantization: what is stored, and that it computes what int8 would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.models import counted, logits, token_rows
from tests.trainer.compress.world import make_llama, write_model
from tests.trainer.conftest import save_model
from trainer.compress import magnitude, ptq, svd
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES, targets_of
from trainer.compress.size import count_parameters, measure_shape, tensor_bytes
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.spec import MagnitudePrune, QuantizePtq, SvdFactorize

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


@pytest.mark.parametrize(
    ("scheme", "algorithm", "bits"),
    [("W4A16", "rtn", 4), ("W4A16", "gptq", 4), ("W4A16", "awq", 4), ("W8A16", "rtn", 8),
     ("FP8", "rtn", 8), ("W8A8", "smoothquant", 8)],
)  # fmt: skip
def test_each_scheme_is_stored_in_its_bits_and_loads(
    scheme: str, algorithm: str, bits: int, tmp_path: Path
) -> None:
    source = write_model(tmp_path / "m")
    fields = {"group_size": 32} if scheme == "W4A16" else {}
    target = quantize(source, tmp_path / "q", scheme=scheme, algorithm=algorithm, **fields)
    name = "model.layers.1.mlp.up_proj"
    stored = sum(
        size
        for tensor, size in tensor_bytes(target).items()
        if tensor.startswith(f"{name}.weight") and not tensor.endswith(("scale", "shape"))
    )
    dense = load_model(source)
    weight = dense.model.layers[1].mlp.up_proj.weight
    assert stored == weight.numel() * bits // 8
    made = load_model(target)
    shape = measure_shape(target)
    assert (shape.parameters, shape.nonzero) == counted(made)
    assert count_parameters(made) == count_parameters(dense) == shape.parameters
    if algorithm == "rtn":
        expected = rtn(weight, SCHEMES[scheme], 32)
        assert torch.allclose(made.model.layers[1].mlp.up_proj.weight, expected, rtol=1e-2)
    distance = float((logits(made) - logits(dense)).abs().mean() / logits(dense).std())
    assert 0 < distance < {"W4A16": 0.6, "FP8": 0.3}.get(scheme, 0.1)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize(
    ("scheme", "algorithm"),
    [("W8A8", "rtn"), ("W8A8", "gptq"), ("W8A8", "smoothquant"), ("W8A16", "gptq"),
     ("W4A16", "gptq"), ("W4A16", "awq"), ("FP8", "rtn")],
)  # fmt: skip
def test_a_mask_survives_every_algorithm(
    scheme: str, algorithm: str, pattern: str, tmp_path: Path
) -> None:
    masked = make_llama().to(torch.bfloat16)
    magnitude.apply(MagnitudePrune(kind="magnitude", pattern=pattern), masked, ())
    source = save_model(tmp_path / "m", masked)
    fields = {"group_size": 32} if scheme == "W4A16" else {}
    target = quantize(source, tmp_path / "q", scheme=scheme, algorithm=algorithm, **fields)
    made = targets_of(load_model(target))
    for name, linear in targets_of(masked).items():
        assert (made[name].weight[linear.weight == 0] == 0).all(), name
        assert (made[name].weight != 0).any()


def test_a_group_size_that_does_not_divide_names_the_linear(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "m"))
    stage = QuantizePtq(kind="ptq", scheme="W4A16")
    with pytest.raises(BadInput, match=r"128 doesn't divide the 64 inputs of model.layers.0.self"):
        ptq.apply(stage, model, token_rows(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "W4A16", "algorithm": "smoothquant"}, "use rtn, gptq, awq"),
        ({"scheme": "FP8"}, "use rtn"),
        ({"group_size": 64}, "scheme: W4A16 alone"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QuantizePtq(kind="ptq", **fields)


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
