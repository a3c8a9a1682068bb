"""Sizes that a plan tells, against the files that the chain wrote."""

from pathlib import Path
from typing import Any

import pytest
from retort_lowrank import FACTORIZED
from transformers import PreTrainedModel

from tests.trainer.compress.chains import HEAL, inputs, make_spec
from tests.trainer.compress.models import token_rows
from tests.trainer.compress.world import make_llama
from tests.trainer.conftest import save_model
from trainer.compress import svd
from trainer.compress.chain import run
from trainer.compress.expected import Expected, describe
from trainer.compress.forecast import forecast
from trainer.compress.report import StageReport
from trainer.compress.size import tensor_bytes
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import CompressSpec, SvdFactorize

__all__ = ["inputs"]

pytestmark = pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
ODD = {"kind": "width", "hidden": 20, "feed_forward": 36}
SVD = {"kind": "svd", "ranks": "by_loss"}


def both(
    inputs: dict[str, str], out: Path, *stages: dict[str, Any]
) -> list[tuple[Expected, StageReport, int]]:
    """Of each stage: what was expected, the report, and bytes of the tensors written."""
    spec = make_spec(inputs, *stages)
    told = [one.expected for one in forecast(spec, load_model(inputs["model"]))]
    reports = run(spec, out, silent)
    sizes = [sum(tensor_bytes(Path(report.model)).values()) for report in reports]
    return list(zip(told, reports, sizes, strict=True))


def ptq(scheme: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "ptq", "scheme": scheme, "algorithm": "rtn", **fields}


@pytest.mark.parametrize(
    "stages",
    [
        [{"kind": "svd"}, ptq("W8A16")],
        [{"kind": "svd"}, ptq("W8A8")],
        [ODD, ptq("W8A16")],
        [ODD, ptq("FP8")],
        [ODD, ptq("W4A16", group_size=4)],
        [
            {"kind": "width", "feed_forward": 90},
            {"kind": "qaf", "method": "qa_lora", "group_size": 2, "rank": 2, "training": HEAL},
        ],
    ],
)
def test_packed_bytes_are_told_exactly_for_odd_sizes_too(
    stages: list[dict[str, Any]], inputs: dict[str, str], tmp_path: Path
) -> None:
    """Integers hold several numbers, and the last of a row is partly empty."""
    for told, report, size in both(inputs, tmp_path, *stages):
        assert told.weight_bytes == size
        assert told.parameters == report.after.shape.parameters


@pytest.mark.parametrize(
    "stages",
    [
        [{**SVD, "parameter_ratio": 0.6}, ptq("W8A16")],
        [{**SVD, "max_bytes": 95_000}, {"kind": "depth"}],
        [{**SVD, "rank_multiple": 16, "parameter_ratio": 0.8}, ptq("W4A16", group_size=16)],
        [{**SVD, "rank_multiple": 4, "max_relative_error": 0.3}, ptq("W8A8")],
        [{**SVD, "max_loss_increase": 0.5}, ptq("W8A16")],
    ],
)
def test_ranks_that_the_data_choose_take_at_most_what_was_told(
    stages: list[dict[str, Any]], inputs: dict[str, str], tmp_path: Path
) -> None:
    step = stages[0].get("rank_multiple", 1)
    for told, report, size in both(inputs, tmp_path, *stages):
        assert told.unknown
        assert report.after.shape.parameters <= told.parameters
        assert size <= told.weight_bytes
        if told.budget is not None and report.kind != "depth":
            assert told.parameters - report.after.shape.parameters < step * (64 + 96)
            assert size > 0.9 * told.weight_bytes
        for fields in report.details.get("linears", {}).values():
            assert fields["rank"] % step == 0


def by_loss(**fields: Any) -> PreTrainedModel:
    """A model that an earlier run factorized, with other ranks in each of its three layers."""
    model = make_llama()
    for index, layer in enumerate(model.model.layers):  # so that layers lose differently
        layer.mlp.up_proj.weight.data[8 * (index + 1) :] *= 0.02
    stage = SvdFactorize(kind="svd", ranks="by_loss", **fields)
    return svd.apply(stage, model, token_rows(8)).model


def test_a_model_factorized_before_has_the_ranks_of_each_layer(tmp_path: Path) -> None:
    model = by_loss(rank_multiple=2)
    ranks = [layer.mlp.up_proj.right.out_features for layer in model.model.layers]
    assert len(set(ranks)) > 1
    found = describe(model)
    assert found.factorized
    assert found.linears["mlp.up_proj"].ranks == tuple(ranks)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert not found.unknown
    model.save_pretrained(tmp_path / "start")
    assert found.weight_bytes == sum(tensor_bytes(tmp_path / "start").values())


def test_a_model_factorized_before_is_planned_as_it_is(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    model = by_loss(rank_multiple=2)
    start = save_model(tmp_path / "start", model)
    given = {**inputs, "model": str(start)}
    exact: list[list[dict[str, Any]]] = [[{"kind": "magnitude"}], [ptq("W8A8")], [ptq("W8A16")]]
    for index, stages in enumerate(exact):
        for told, report, size in both(given, tmp_path / str(index), *stages):
            assert told.weight_bytes == size
            assert told.parameters == report.after.shape.parameters
    for told, report, size in both(given, tmp_path / "depth", {"kind": "depth"}, ptq("W8A16")):
        assert told.unknown
        assert report.after.shape.parameters <= told.parameters < describe(model).parameters
        assert size <= told.weight_bytes
    (plan,) = forecast(CompressSpec(stages=({"kind": "magnitude"},)), model)
    assert "through retort-lowrank" in "; ".join(plan.notes)


def test_what_the_ranks_of_a_later_layer_do_not_fit_is_refused() -> None:
    dense = make_llama()
    config, kind = FACTORIZED["llama"]
    ranks = {f"layers.{index}.mlp.up_proj": rank for index, rank in enumerate((24, 12, 18))}
    values = {**dense.config.to_dict(), "ranks": ranks}
    model = kind(config(**{name: values[name] for name in values if name != "model_type"}))
    adapters = {"kind": "qaf", "method": "qlora", "scheme": "W8A8", "rank": 12}
    with pytest.raises(BadInput, match=r"stages\[0\].rank: 12 is no less than the 12 of mlp.up"):
        forecast(CompressSpec(stages=(adapters,)), model)
    forecast(CompressSpec(stages=({**adapters, "rank": 11},)), model)
    four = ptq("W4A16", group_size=8)
    with pytest.raises(BadInput, match=r"8 doesn't divide all ranks that .* has, multiples of 6"):
        forecast(CompressSpec(stages=(four,)), model)
    forecast(CompressSpec(stages=({**four, "group_size": 2},)), model)
