"""The chain: order, resume, gates, heals, the plan, and what stages share."""

import json
import typing
from pathlib import Path

import pytest
import torch
import yaml

from tests.trainer.compress.chains import HEAL, Events, inputs, make_spec
from tests.trainer.compress.families import make
from tests.trainer.compress.world import write_questions
from tests.trainer.conftest import save_model
from trainer.compress.chain import run
from trainer.compress.forecast import forecast
from trainer.compress.gate import GateFailed
from trainer.compress.heal import zero_masks
from trainer.compress.making import SHARED, STAGES, TRAINED, UNCHANGED
from trainer.compress.measuring import digest_model
from trainer.compress.report import StageReport
from trainer.compress.size import tensor_bytes
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import EvalSpec, StageSpec

pytestmark = pytest.mark.slow

__all__ = ["inputs"]


def test_there_is_a_function_for_each_kind_of_stage() -> None:
    members = typing.get_args(typing.get_args(StageSpec)[0])
    kinds = {typing.get_args(member.model_fields["kind"].annotation)[0] for member in members}
    assert set(STAGES) | set(TRAINED) | set(UNCHANGED) == kinds


def test_stages_follow_each_other_and_are_measured(inputs: dict[str, str], tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.jsonl", 4)
    (Path(inputs["model"]) / "README.md").write_text("the first model's own card", "utf-8")
    spec = make_spec(
        inputs,
        {"kind": "depth"},
        {"kind": "svd"},
        {"kind": "wanda", "on": "start"},
        evaluate=EvalSpec(data=str(questions), max_new_tokens=4),
    )
    events = Events()
    depth, svd, wanda = run(spec, tmp_path / "out", events)
    assert depth.source == wanda.source == inputs["model"]
    assert svd.source == depth.model
    assert (depth.before.shape.layers, depth.after.shape.layers) == (3, 2)
    assert svd.before == depth.after
    assert wanda.before == depth.before
    assert svd.after.shape.weight_bytes < svd.before.shape.weight_bytes
    assert wanda.after.shape.weight_bytes == wanda.before.shape.weight_bytes
    assert depth.before.kl_from_start == 0.0
    assert wanda.after.kl_from_start == wanda.kl_from_source
    assert svd.kl_split == "validation"
    for report in (depth, svd, wanda):
        assert report.passed
        assert report.after.measurement is not None
        assert set(report.after.measurement.skills) == {"cot", "icl"}
        assert (report.kl_from_source or 0) > 0
        assert load_model(report.model).config.num_hidden_layers == report.after.shape.layers
        names = {path.name for path in Path(report.model).parent.iterdir()}
        assert names == {"model", "report.json"}
    assert [f["kind"] for e, f in events if e == "stage"] == ["depth", "svd", "wanda"]
    check_card(svd, (Path(svd.model) / "README.md").read_text("utf-8"))


def check_card(report: StageReport, card: str) -> None:
    """Its own, with its own figures: the source's would speak of another model."""
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["retort", "compression", "svd"]
    sizes = (report.before.shape.weight_bytes, report.after.shape.weight_bytes)
    assert "| bytes of weights | {:,} | {:,} |".format(*sizes) in body
    assert "| accuracy, cot | " in body
    assert "serve_check is off" in body
    assert "model's own card" not in card
    assert str(Path(report.source).parent) not in card


def test_a_gate_stops_the_chain_and_keeps_what_was_made(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    gate = {"max_kl": 1e-9}
    spec = make_spec(inputs, {"kind": "wanda", "gate": gate}, {"kind": "depth"})
    for _ in range(2):  # a second run finds the same verdict, without the work
        events = Events()
        with pytest.raises(GateFailed, match="max_kl is 1e-09") as failed:
            run(spec, tmp_path, events)
        assert not failed.value.report.passed
    assert events.worked_on() == []
    kept = json.loads((tmp_path / "stage-0-wanda" / "report.json").read_text("utf-8"))
    assert kept["failures"]
    load_model(tmp_path / "stage-0-wanda" / "model")
    assert not (tmp_path / "stage-1-depth").exists()
    wide = make_spec(inputs, {"kind": "wanda", "gate": {"max_kl": 1e9}}, {"kind": "depth"})
    assert len(run(wide, tmp_path, silent)) == 2


def test_a_gate_stops_what_follows_and_no_branch_beside_it(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    strict = {"kind": "magnitude", "gate": {"max_kl": 1e-9}}
    stages = (strict, {"kind": "depth"}, {"kind": "svd"}, {"kind": "depth", "on": "start"})
    spec = make_spec(inputs, *stages, {"kind": "svd"}, {**strict, "on": "start"})
    for worked in (["magnitude", "depth", "svd", "magnitude"], []):
        events = Events()
        with pytest.raises(GateFailed) as failed:
            run(spec, tmp_path / "out", events)
        assert failed.value.report.index == 0  # the first of two
        assert events.worked_on() == worked
        told = [fields["report"] for event, fields in events if event == "stage"]
        assert [(report["index"], report["passed"]) for report in told] == [
            (0, False),
            (3, True),
            (4, True),
            (5, False),
        ]
        left_out = [fields["detail"] for event, fields in events if event == "warning"]
        assert [detail.split(" was")[0] for detail in left_out] == [
            "stage 1 (depth)",
            "stage 2 (svd)",
        ]
        first, branch, behind, _ = (StageReport.model_validate(report) for report in told)
        assert (branch.source, behind.source) == (inputs["model"], branch.model)
        assert branch.before == first.before
        assert behind.before == branch.after
    places = {path.name for path in (tmp_path / "out").iterdir()}
    assert places == {"stage-0-magnitude", "stage-3-depth", "stage-4-svd", "stage-5-magnitude"}


@pytest.mark.parametrize("method", ["forward_kl", "sequence_level"])
def test_a_mask_survives_its_heal(method: str, inputs: dict[str, str], tmp_path: Path) -> None:
    plain = make_spec(inputs, {"kind": "wanda"})
    healed = make_spec(inputs, {"kind": "wanda", "heal": {"method": method, **HEAL}})
    (before,) = run(plain, tmp_path / "plain", silent)
    (after,) = run(healed, tmp_path / "healed", silent)
    masks = zero_masks(Path(before.model))
    assert masks
    weights = dict(load_model(after.model).named_parameters())
    unhealed = dict(load_model(before.model).named_parameters())
    for name, mask in masks.items():
        assert (weights[name][mask] == 0).all()
        assert not torch.equal(weights[name], unhealed[name])
    assert after.heal is not None
    assert after.heal.steps == 2
    assert after.heal.kl_before == before.after.kl_from_start
    assert after.heal.kl_after != after.heal.kl_before


def test_factors_are_trained_as_they_are(inputs: dict[str, str], tmp_path: Path) -> None:
    (report,) = run(make_spec(inputs, {"kind": "svd", "heal": HEAL}), tmp_path, silent)
    model = load_model(report.model)
    assert model.config.model_type == "retort_lowrank_llama"
    assert report.heal is not None
    assert report.heal.kl_after is not None
    assert report.heal.kl_after < (report.heal.kl_before or 0)


def test_a_model_with_capped_logits_is_compressed_and_healed(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Gemma 2: what is measured and what is trained is capped as its own logits are."""
    model = save_model(tmp_path / "gemma2", make("gemma2", vocab_size=61))  # type: ignore[arg-type]
    given = {**inputs, "model": str(model)}
    narrow = {"kind": "width", "feed_forward": 24, "hidden": 20}
    stages = run(make_spec(given, narrow, {"kind": "svd"}), tmp_path / "out", silent)
    assert all((report.kl_from_source or 0) > 0 for report in stages)
    (healed,) = run(make_spec(given, {**narrow, "heal": HEAL}), tmp_path / "healed", silent)
    assert healed.heal is not None
    assert healed.heal.kl_after != healed.heal.kl_before


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_a_heal_and_a_measurement_may_be_stages_of_their_own(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    packed = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 32}
    heal = {"kind": "heal", "heal": {"method": "sequence_level", **HEAL}}
    spec = make_spec(inputs, {"kind": "wanda"}, {**heal}, packed, {"kind": "evaluate"})
    wanda, healed, rounded, measured = run(spec, tmp_path / "out", silent)
    assert (healed.source, measured.source) == (wanda.model, rounded.model)
    assert healed.heal is not None
    assert healed.heal.kl_before == wanda.after.kl_from_start
    assert zero_masks(Path(healed.model)).keys() == zero_masks(Path(wanda.model)).keys()
    assert digest_model(Path(measured.model)) == digest_model(Path(rounded.model))
    assert measured.kl_from_source == 0.0
    assert measured.after.shape == rounded.after.shape
    events = Events()
    assert len(run(spec, tmp_path / "out", events)) == 4
    assert events.worked_on() == []


def test_calibration_rows_and_branches_matter(inputs: dict[str, str], tmp_path: Path) -> None:
    few, many = (
        run(make_spec(inputs, {"kind": "svd", "calibration_rows": n}), tmp_path / str(n), silent)[0]
        for n in (8, 40)
    )
    assert (few.calibration_rows, many.calibration_rows) == (8, 40)
    assert few.kl_from_source != many.kl_from_source


def test_stages_that_look_at_no_activations_report_no_rows(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Plain SVD looks: its errors are those of outputs."""
    stages = (
        {"kind": "magnitude"},
        {"kind": "heal", "heal": HEAL},
        {"kind": "evaluate"},
        {"kind": "wanda", "on": "start"},
        {"kind": "svd", "scaling": "none"},
    )
    reports = run(make_spec(inputs, *stages), tmp_path, silent)
    assert [report.calibration_rows for report in reports] == [0, 0, 0, 40, 40]
    assert any("a mask's zeros are gone: 50% of" in note for note in reports[-1].notes)


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_the_plan_is_told_before_anything_runs(inputs: dict[str, str], tmp_path: Path) -> None:
    """Sizes and engines first, and the sizes are those that are measured in the end."""
    spec = make_spec(
        inputs,
        {"kind": "depth"},
        {"kind": "width", "feed_forward": 64, "hidden": 48, "key_value_groups": 1},
        {"kind": "svd", "rank_multiple": 8},
        {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 8},
        {"kind": "sparsegpt", "on": "start"},
    )
    events = Events()
    reports = run(spec, tmp_path, events)
    names = [fields["name"] for event, fields in events if event == "phase"]
    assert names.index("plan") < names.index("stage 0: depth")
    (told,) = (fields["detail"] for _, fields in events if fields.get("name") == "plan")
    expected = forecast(spec, load_model(inputs["model"]))
    for report, each, line in zip(reports, expected, told.splitlines(), strict=True):
        assert each.tell(report.index, report.kind) == line
        shape = report.after.shape
        assert each.expected.layers == shape.layers
        stored = tensor_bytes(Path(report.model))
        assert each.expected.weight_bytes == sum(stored.values())
        if report.kind != "ptq":
            assert each.expected.parameters == shape.parameters
    assert "retort-lowrank" in told
    assert "no engine is faster by its zeros" in told.splitlines()[-1]


def test_statistics_are_shared_by_stages_on_one_model(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    first = {"kind": "svd", "on": "start"}
    spec = make_spec(
        inputs,
        first,
        {**first, "scaling": "activation"},
        {**first, "calibration_rows": 20},
        {"kind": "depth", "on": "start"},
        {"kind": "svd"},
    )
    shared = [SHARED in report.notes for report in run(spec, tmp_path, silent)]
    assert shared == [False, True, False, False, False]
