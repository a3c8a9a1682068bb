"""A stage at several ratios: laid out, measured each, shown together."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.compress.chains import Events, make_spec
from tests.trainer.compress.families import make
from tests.trainer.compress.world import write_dataset, write_model
from trainer.compress.chain import run
from trainer.compress.forecast import forecast, tell
from trainer.compress.points import lay_out
from trainer.events import silent
from trainer.spec import CompressSpec

SVD = {"kind": "svd", "sweep": {"ratios": [0.3, 0.6]}}


def test_each_ratio_is_a_branch_of_the_model_before_the_sweep() -> None:
    stages = ({"kind": "depth"}, SVD, {"kind": "magnitude", "on": "start"})
    points = lay_out(CompressSpec(stages=stages))
    assert [point.label for point in points] == ["depth", "svd 0.3", "svd 0.6", "magnitude"]
    assert [point.before for point in points] == [None, 0, 0, None]
    assert [point.asked for point in points] == [0, 1, 1, 2]
    found = forecast(CompressSpec(stages=stages[:2]), make("llama"))
    sizes = [each.expected.parameters for each in found]
    assert sizes[1] < sizes[2] < sizes[0]
    told = tell(CompressSpec(stages=stages[:2]), found)
    assert "stages[1] svd 0.6:" in told


def test_every_ratio_is_measured_and_a_gate_ends_nothing(tmp_path: Path) -> None:
    inputs = {
        "model": str(write_model(tmp_path / "start")),
        "dataset": str(write_dataset(tmp_path / "data")),
    }
    strict = {**SVD, "gate": {"max_kl": 1e-9}}
    spec = make_spec(inputs, strict)
    reports = run(spec, tmp_path / "out", events := Events())
    assert [report.label for report in reports] == ["svd 0.3", "svd 0.6"]
    assert [report.passed for report in reports] == [False, False]
    first, second = reports
    assert first.source == second.source == inputs["model"]
    assert first.before == second.before
    assert first.after.shape.weight_bytes < second.after.shape.weight_bytes
    assert (first.kl_from_source or 0) > (second.kl_from_source or 0)
    assert second.sweep is not None
    assert (second.sweep.stage, second.sweep.field, second.sweep.ratio) == (
        0,
        "parameter_ratio",
        0.6,
    )
    assert events.worked_on() == ["svd 0.3", "svd 0.6"]
    again = Events()
    assert run(spec, tmp_path / "out", again) == reports
    assert again.worked_on() == []
    wider = make_spec(inputs, {**strict, "sweep": {"ratios": [0.3, 0.5]}})
    run(wider, tmp_path / "out", again)
    assert again.worked_on() == ["svd 0.5"]
    alone = make_spec(inputs, {**strict, "sweep": None, "parameter_ratio": 0.3, "gate": {}})
    (single,) = run(alone, tmp_path / "alone", silent)
    assert single.sweep is None
    loose = make_spec(inputs, {**SVD, "gate": {}})
    found = run(loose, tmp_path / "alone", again := Events())[0]
    assert again.worked_on() == ["svd 0.6"]
    assert found.sweep == first.sweep


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"kind": "wanda", "sweep": {"ratios": [0.5, 1.2]}}], r"ratios\[1\] is 1.2"),
        ([{"kind": "wanda", "sweep": {"ratios": [0.5, 0.3]}}], "ratios must rise"),
        ([{"kind": "wanda", "sweep": {"ratios": [0.5]}}], "at least 2"),
        ([{"kind": "wanda", "sparsity": 0.3, "sweep": {"ratios": [0.2, 0.3]}}], "replaces spars"),
        ([{"kind": "wanda", "pattern": "2:4", "sweep": {"ratios": [0.2, 0.3]}}], "replaces spars"),
        ([{**SVD, "max_bytes": 900}], "sweep replaces parameter_ratio"),
        ([{**SVD, "kind": "tensor", "parameter_ratio": 0.3}], "sweep replaces parameter_ratio"),
        ([{**SVD, "kind": "depth"}], "Extra inputs are not permitted"),
        ([SVD, {"kind": "ptq"}], r"stages\[1\].on: the sweep before leaves several"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompressSpec(stages=tuple(stages))
