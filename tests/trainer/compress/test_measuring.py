"""How the models of a chain are measured: figures, intervals, and what it costs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from tests.trainer.compress.chains import inputs, make_spec
from tests.trainer.compress.families import make
from tests.trainer.conftest import save_model
from trainer.compress import measuring
from trainer.compress.chain import run
from trainer.compress.measuring import estimate_distance
from trainer.compress.plan import make_plan
from trainer.compress.report import ModelFacts, StageReport
from trainer.events import silent
from trainer.loading import load_model
from trainer.measurement import Distance

pytestmark = pytest.mark.slow

__all__ = ["inputs"]


def test_every_model_has_perplexity_kl_and_agreement_with_intervals(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    stages = ({"kind": "depth"}, {"kind": "svd"}, {"kind": "wanda", "on": "start"})
    depth, svd, wanda = run(make_spec(inputs, *stages), tmp_path / "out", silent)
    assert wanda.from_source == wanda.after.from_start
    own = depth.before.from_start
    assert own is not None
    assert own.kl is not None
    assert own.top1_agreement is not None
    assert (own.kl.low, own.kl.high, own.top1_agreement.low) == (0.0, 0.0, 1.0)
    for report in (depth, svd, wanda):
        for facts in (report.before, report.after):
            assert facts.perplexity is not None
            assert 1 < facts.perplexity.low < facts.perplexity.value < facts.perplexity.high
        for distance, kl in (
            (report.from_source, report.kl_from_source),
            (report.after.from_start, report.after.kl_from_start),
        ):
            assert distance is not None
            assert distance.kl is not None
            assert distance.kl.value == pytest.approx(kl)
            assert distance.kl.low < distance.kl.value < distance.kl.high
            assert distance.kl.rows == 10
            assert distance.top1_agreement is not None
            assert 0 < distance.top1_agreement.value <= 1


def test_the_first_model_is_asked_once_for_all_that_are_compared_with_it(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    plan = make_plan(make_spec({**inputs}, {"kind": "magnitude"}), silent, None)
    start = tmp_path / "start"
    shutil.copytree(inputs["model"], start)
    asking = replace(plan.measuring, start=start)
    other = save_model(tmp_path / "other", make("llama", vocab_size=61))  # type: ignore[arg-type]
    first = asking.kl(start, other)
    shutil.rmtree(start)
    assert asking.kl(start, other) == first
    assert asking.kl(other, other) == (pytest.approx(0.0, abs=1e-6), first[1])
    assert first[0] > 0.01


def test_measuring_loads_a_made_model_once_for_both_of_its_kls(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its source once: figures with intervals cost no pass of their own."""
    loaded: list[str] = []

    def note(model_dir: Path) -> PreTrainedModel:
        loaded.append(Path(model_dir).parent.name)
        return load_model(model_dir)

    monkeypatch.setattr(measuring, "load_model", note)
    run(make_spec(inputs, {"kind": "depth"}, {"kind": "magnitude"}), tmp_path / "out", silent)
    made, start = ["stage-0-depth", "stage-1-magnitude"], Path(inputs["model"]).parent.name
    # the first one is listened to before anything is made, and then asked
    assert sorted(loaded) == sorted([start, start, made[0], made[0], made[1]])


def test_outputs_that_are_not_finite_leave_a_report_that_can_be_read(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    model = load_model(inputs["model"])
    model.get_output_embeddings().weight.data[7] = float("inf")
    made = save_model(tmp_path / "made", model)
    plan = make_plan(make_spec(inputs, {"kind": "magnitude"}), silent, None)
    after, from_source, _ = plan.measuring.of_made(Path(inputs["model"]), made)
    assert after.perplexity is None
    assert after.from_start == estimate_distance(from_source)
    assert after.from_start == Distance(kl=None, top1_agreement=None)
    read = ModelFacts.model_validate_json(after.model_dump_json())
    assert (read.kl_from_start, read.from_start) == (None, after.from_start)


def test_a_report_without_the_newer_figures_is_still_read(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    (report,) = run(make_spec(inputs, {"kind": "magnitude"}), tmp_path, silent)
    stored = json.loads(report.model_dump_json())
    del stored["from_source"]
    for side in ("before", "after"):
        for figure in ("from_start", "perplexity", "from_teacher", "row_answers"):
            del stored[side][figure]
    read = StageReport.model_validate(stored)
    assert (read.from_source, read.after.perplexity) == (None, None)
    assert read.kl_from_source == report.kl_from_source
