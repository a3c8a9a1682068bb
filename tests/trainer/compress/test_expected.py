"""Sizes that a plan tells, against the files that the chain wrote."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.compress.chains import HEAL, inputs, make_spec
from trainer.compress.chain import run
from trainer.compress.expected import Expected
from trainer.compress.forecast import forecast
from trainer.compress.report import StageReport
from trainer.compress.size import tensor_bytes
from trainer.events import silent
from trainer.loading import load_model

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
