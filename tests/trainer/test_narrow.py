"""A teacher in less memory, beside the one in all its digits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainer.conftest import make_model, make_records, save_model
from tests.trainer.methods.made import all_rows, learnt, loss_of, made, spec_of
from trainer.errors import BadInput
from trainer.estimate import memory
from trainer.narrow import GROUP, NarrowLinear, narrow, offload


def linear(inputs: int, outputs: int = 5) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize("inputs", [64, 70, 128])
def test_weights_are_rounded_to_the_nearest_of_their_grid(inputs: int) -> None:
    wide = linear(inputs)
    eight, four = NarrowLinear(wide, 8), NarrowLinear(wide, 4)
    off = (wide.weight - eight.weight()).abs()
    assert (off <= eight.scale / 2 * 1.001).all()
    torch.testing.assert_close(eight.weight().abs().amax(1), wide.weight.detach().abs().amax(1))
    each = four.scale.repeat_interleave(GROUP, dim=1)[:, :inputs]
    assert ((wide.weight - four.weight()).abs() <= each / 2 * 1.001).all()
    assert off.max() < (wide.weight - four.weight()).abs().max() / 4


def test_what_is_on_the_grid_stays_as_it_is() -> None:
    wide = linear(64, 2)
    with torch.no_grad():
        wide.weight.copy_(torch.arange(128).remainder(16).view(2, 64) * 0.5 - 3)
    assert torch.equal(NarrowLinear(wide, 4).weight(), wide.weight)
    nothing = linear(64, 2)
    with torch.no_grad():
        nothing.weight.zero_()
    for bits in (8, 4):
        assert torch.equal(NarrowLinear(nothing, bits).weight(), nothing.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [8, 4])
def test_it_computes_with_the_widened_weight_and_holds_the_narrow_one(
    bits: Any, dtype: torch.dtype
) -> None:
    wide = linear(128, 6).to(dtype)
    small, given = NarrowLinear(wide, bits), torch.randn(3, 128).to(dtype)
    expected = nn.functional.linear(given, small.weight(), wide.bias)
    assert torch.equal(small(given), expected)
    assert small(given).dtype == dtype
    codes = small.codes
    assert codes.numel() * codes.element_size() == 6 * 128 * bits // 8
    assert not [name for name, _ in small.named_parameters() if name != "bias"]


def test_body_is_narrowed_and_embeddings_and_head_are_not() -> None:
    model = make_model(tie_word_embeddings=False)
    narrow(model, 8)
    linears = [name for name, one in model.named_modules() if type(one) is nn.Linear]
    assert linears == ["lm_head"]
    assert sum(isinstance(one, NarrowLinear) for one in model.modules()) == 2 * 7


def loss(place: Path, method: str = "kd", **fields: Any) -> float:
    run, student = made(spec_of(place, method, **fields), make_records(8))
    return loss_of(student, all_rows(run))[0].item()


def test_a_narrow_teacher_says_nearly_the_same(tmp_path: Path) -> None:
    plain = loss(tmp_path)
    eight, four = (loss(tmp_path, teacher_load={"bits": bits}) for bits in (8, 4))
    assert 0 < abs(eight - plain) < 0.01 * plain
    assert abs(eight - plain) < abs(four - plain) < 0.2 * plain


def test_the_dtype_is_the_one_asked_for(tmp_path: Path) -> None:
    plain = loss(tmp_path)
    half = loss(tmp_path, teacher_load={"dtype": "bf16"})
    assert 0 < abs(half - plain) < 0.02 * plain
    save_model(tmp_path / "half", make_model(1, hidden_size=48, intermediate_size=48).bfloat16())
    saved = loss(tmp_path, teacher=str(tmp_path / "half"))
    wide = loss(tmp_path, teacher=str(tmp_path / "half"), teacher_load={"dtype": "fp32"})
    assert saved == pytest.approx(half, rel=1e-6)
    assert wide != saved


def test_features_and_draws_take_a_narrow_teacher(tmp_path: Path) -> None:
    relations = {"features": ({"kind": "relation"},), "divergence": None}
    assert loss(tmp_path, teacher_load={"bits": 4}, **relations) > 0
    fields = {"max_new_tokens": 4, "teacher_load": {"bits": 8}}
    run, student = made(spec_of(tmp_path, "minillm", **fields))
    (drawn,) = learnt(student, [all_rows(run)])
    assert torch.isfinite(drawn.columns["advantage"]).all()


def test_layers_that_wait_elsewhere_compute_the_same() -> None:
    """On a CPU they wait as they would beside a GPU, and visit the same device."""
    model, ids = make_model(), torch.arange(7, 19).view(2, 6)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        offload(model, torch.device("cpu"))
        assert torch.equal(model(input_ids=ids).logits, before)
    waiting = {str(one.device) for one in model.model.layers.parameters()}
    assert waiting == {"meta"}
    assert model.get_output_embeddings().weight.device.type == "cpu"


def test_on_a_cpu_there_is_nowhere_to_wait(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BadInput, match=r"teacher_load\.offload: the training runs on a CPU"):
        made(spec_of(tmp_path, "kd", teacher_load={"offload": True}))


def test_the_estimate_follows_how_it_is_held(tmp_path: Path) -> None:
    def estimate(**load: Any) -> float:
        run, _ = made(spec_of(tmp_path, "kd", teacher_load=load))
        return memory(run.spec, run.rows, run.plan)["teacher"]

    assert estimate(dtype="bf16") == estimate() / 2
    assert estimate(bits=8) == estimate() / 4
    assert estimate(bits=4) == estimate() / 8


def test_the_estimate_reads_configurations_of_any_age(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "kd")
    file = tmp_path / "teacher/config.json"
    held = json.loads(file.read_text())

    def estimate(**named: str) -> float:
        file.write_text(json.dumps({**held, "dtype": None, **named}))
        run, _ = made(spec)
        return memory(run.spec, run.rows, run.plan)["teacher"]

    assert estimate(dtype="bfloat16") == estimate(torch_dtype="bfloat16") == estimate() / 2
