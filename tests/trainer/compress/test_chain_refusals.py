"""Chains that are refused: bad inputs, orders that can't work, disks that are full."""

import errno
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.compress.chains import HEAL, Events, inputs, make_spec
from tests.trainer.compress.world import write_dataset, write_questions
from trainer.compress import chain
from trainer.compress.chain import run
from trainer.compress.making import STAGES
from trainer.compress.measuring import digest_model
from trainer.compress.outcome import Outcome
from trainer.compress.plan import make_plan
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import CompressSpec, EvalSpec

__all__ = ["inputs"]


FOUR = {"kind": "ptq", "scheme": "W4A16", "algorithm": "rtn", "group_size": 16}


def training(**fields: Any) -> dict[str, Any]:
    return {"optimization": {**HEAL["optimization"], **fields}}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"kind": "ptq", "heal": HEAL}], r"\(ptq\) can't be healed"),
        ([{"kind": "qat", "group_size": 32, "heal": HEAL}], r"\(qat\) can't be healed"),
        ([{"kind": "qat"}], r"stages\[0\].group_size: 128 doesn't divide"),
        ([{"kind": "depth", "layers": 3}], "would leave 0 layers"),
        ([{"kind": "depth", "layers": 2}, {"kind": "depth"}], "would leave 0 layers"),
        ([{"kind": "wanda"}, {"kind": "svd", "targets": ["nope"]}], "no linear named nope"),
        ([{"kind": "depth", "layers": 3}], r"stages\[0\].layers"),
        ([{"kind": "depth"}, {"kind": "width", "hidden": 65}], r"stages\[1\].hidden is 65"),
        ([{"kind": "ptq", "scheme": "W4A16"}], r"stages\[0\].group_size: 128 doesn't divide"),
        (
            [{"kind": "svd"}, {"kind": "ptq", "scheme": "W4A16", "group_size": 32}],
            r"stages\[1\].group_size: 32 doesn't divide the \d+ inputs",
        ),
        (
            [{"kind": "svd", "ranks": "by_loss", "rank_multiple": 8}, FOUR],
            r"stages\[1\].group_size: 16 doesn't divide all ranks that .* multiples of 8",
        ),
        (
            [{"kind": "svd", "ranks": "by_loss"}, {"kind": "wanda", "pattern": "2:4"}],
            r"stages\[1\].pattern: 2:4 doesn't fit all ranks that",
        ),
        (
            [{"kind": "svd", "ranks": "by_loss", "rank_multiple": 64}],
            r"stages\[0\]: rank_multiple 64 leaves .* no rank",
        ),
        (
            [{"kind": "depth"}, {"kind": "svd", "ranks": "by_loss", "parameter_ratio": 0.01}],
            r"stages\[1\]: \d+ parameters leave some matrix no rank",
        ),
        ([{"kind": "magnitude", "layer_sparsities": [0.1]}], r"stages\[0\].layer_sparsities has 1"),
        ([{"kind": "svd", "calibration_rows": 7}], r"at least 8 rows and 64 tokens"),
        ([{"kind": "svd", "max_bytes": 10}], "max_bytes 10 can't be met"),
        (
            [{"kind": "depth"}, {"kind": "tensor", "parameter_ratio": 0.01}],
            r"stages\[1\]: parameter_ratio 0.01 leaves no rank to the folded weights",
        ),
        (
            [{"kind": "depth"}, {"kind": "tensor", "form": "cp", "parameter_ratio": 0.02}],
            r"stages\[1\]: parameter_ratio 0\.\d+ leaves attention \(64 x 64\) no rank",
        ),
        (
            [{"kind": "depth"}, {"kind": "magnitude", "heal": training(max_length=8)}],
            r"stages\[1\].heal: no row is short enough",
        ),
        (
            [{"kind": "depth"}, {"kind": "heal", "heal": training(report_to=["clearml"])}],
            r"stages\[1\].heal: optimization.report_to: clearml is not installed",
        ),
        (
            [
                {"kind": "depth"},
                {"kind": "qat", "group_size": 32, "training": training(max_length=8)},
            ],
            r"stages\[1\].training: no row is short enough",
        ),
    ],
)
def test_a_chain_that_can_not_end_is_refused_before_it_begins(
    stages: list[dict[str, Any]], message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        run(make_spec(inputs, *stages), tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_a_question_longer_than_the_model_holds_is_refused_before_anything_runs(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    path = write_questions(tmp_path / "questions.jsonl")
    lines = path.read_text("utf-8").splitlines()
    long = json.loads(lines[3])
    long["prompt"][0]["content"] = "w1 " * 200
    path.write_text("\n".join([*lines[:3], json.dumps(long), *lines[4:]]), "utf-8")
    for limit, refused in ((200, True), (1, False)):
        evaluate = EvalSpec(data=str(path), limit_per_skill=limit, max_new_tokens=2)
        spec = make_spec({**inputs, "evaluate": evaluate}, {"kind": "magnitude"})
        with pytest.raises(BadInput, match="row q3 doesn't fit") if refused else nullcontext():
            make_plan(spec, silent, None)


def test_a_heal_that_keeps_the_best_needs_validation_rows(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "data", 16, 0)
    heal = training(keep="best")
    spec = make_spec({**inputs, "dataset": str(dataset)}, {"kind": "heal", "heal": heal})
    with pytest.raises(BadInput, match=r"stages\[0\].heal: optimization.keep: best needs"):
        make_plan(spec, silent, None)


def test_bad_inputs_are_refused(inputs: dict[str, str], tmp_path: Path) -> None:
    stage = {"kind": "depth"}
    for changes, message in (
        ({"model": str(tmp_path)}, "not a model directory"),
        ({"model": str(tmp_path / "none")}, "not a model directory"),
        ({"model": None}, "needs a model"),
        ({"dataset": None}, "needs a model and a dataset"),
        ({"dataset": str(tmp_path)}, "not a dataset"),
        ({"evaluate": EvalSpec(data=str(tmp_path / "none"))}, "no evaluation file"),
    ):
        with pytest.raises(BadInput, match=message):
            run(make_spec({**inputs, **changes}, stage), tmp_path / "out", silent)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["qat", "depth"], r"stages\[1\]: depth can't follow qat"),
        (["ptq", "depth"], r"stages\[1\]: depth can't follow ptq"),
        (["ptq", "evaluate", "heal"], r"stages\[2\]: heal can't follow ptq"),
        (["depth", "svd", "svd"], r"stages\[2\]: svd factorizes a model once"),
        (["svd", "wanda", "width"], r"stages\[2\]: width cuts whole matrices"),
        (["svd", "tensor"], r"stages\[1\]: tensor folds whole matrices"),
    ],
)
def test_orders_that_can_not_work_are_refused_by_the_spec(
    stages: list[str], message: str, inputs: dict[str, str]
) -> None:
    specs: list[dict[str, Any]] = [{"kind": kind} for kind in stages]
    for spec in specs:
        if spec["kind"] == "width":
            spec["hidden"] = 8
    with pytest.raises(ValidationError, match=message):
        make_spec(inputs, *specs)
    with pytest.raises(ValidationError, match=r"stages\[1\].algorithm: smoothquant rescales"):
        make_spec(inputs, {"kind": "svd"}, {"kind": "ptq", "algorithm": "smoothquant"})
    with pytest.raises(ValidationError, match="evaluate changes nothing: use kind: heal"):
        make_spec(inputs, {"kind": "evaluate", "heal": HEAL})
    make_spec(inputs, *[{**spec, "on": "start"} for spec in specs])


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "sparsegpt", "damping": float("inf")},
        {"kind": "svd", "ranks": "by_loss", "max_loss_increase": float("inf")},
        {"kind": "magnitude", "gate": {"max_kl": float("inf")}},
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_the_spec(stage: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        CompressSpec(stages=(stage,))


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: Path) -> None:
        """A disk on which files end in the middle."""
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    source = Path(inputs["model"])
    before = digest_model(source)
    monkeypatch.setitem(STAGES, "depth", lambda stage, model, *given: Outcome(model, save=full))
    with pytest.raises(BadInput, match="is full"):
        run(make_spec(inputs, {"kind": "depth"}), tmp_path, silent)
    assert not list((tmp_path / "stage-0-depth").iterdir())
    assert digest_model(source) == before


def test_a_disk_that_fills_up_under_a_healed_model_leaves_none(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healed = shutil.copytree(inputs["model"], tmp_path / "healed")
    (healed / "retort.json").write_text('{"steps": 1}', "utf-8")
    copy = shutil.copytree

    def full(source: Path, target: Path, **more: Any) -> Path:
        """A disk on which the healed model has no room."""
        copy(source, target, **more)
        if source == healed:
            (target / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return target

    monkeypatch.setattr(chain, "heal_model", lambda *given: healed)
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(BadInput, match="is full"):
        run(make_spec(inputs, {"kind": "heal", "heal": HEAL}), tmp_path / "out", silent)
    names = {path.name for path in (tmp_path / "out/stage-0-heal").iterdir()}
    assert names == {"made", "made.json"}


def test_weights_that_are_no_numbers_are_named_before_anything_runs(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    """Magnitude pruning would take them for large ones."""
    source = shutil.copytree(inputs["model"], tmp_path / "broken")
    model = load_model(source)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    model.save_pretrained(source)
    with pytest.raises(BadInput, match=r"not finite: The first are in .*layers\.1\.mlp\.up_proj"):
        run(make_spec({**inputs, "model": str(source)}, {"kind": "magnitude"}), tmp_path, silent)


def test_heads_that_their_groups_do_not_divide_are_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    source = shutil.copytree(inputs["model"], tmp_path / "odd")
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {"num_attention_heads": 4, "num_key_value_heads": 3, "head_dim": 16}
    (source / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(BadInput, match="has 4 attention heads in 3 groups"):
        run(make_spec({**inputs, "model": str(source)}, {"kind": "magnitude"}), tmp_path, silent)


@pytest.mark.parametrize(
    ("first", "message"), [(4, "gives outputs that are not finite"), (20, "rows is not finite")]
)
def test_a_model_or_teacher_that_overflows_is_to_blame_itself(
    first: int, message: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    """Finite weights whose products aren't, of tokens from the fourth or the twentieth on."""
    source = shutil.copytree(inputs["model"], tmp_path / "large")
    model = load_model(source)
    with torch.no_grad():
        embedding, layer = model.model.embed_tokens.weight, model.model.layers[0]
        embedding[:, 0] = (torch.arange(len(embedding)) >= first).to(embedding)
        layer.self_attn.o_proj.weight[0] = 0  # no token tells another of its first number
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
            linear.weight[:, 0] = 1e38
    model.save_pretrained(source)
    for given in ({**inputs, "model": str(source)}, {**inputs, "teacher": str(source)}):
        with pytest.raises(BadInput, match=message):
            run(make_spec(given, {"kind": "magnitude"}), tmp_path / "out", events := Events())
        assert events.worked_on() == []  # before anything is spent
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_quantized_already_is_refused(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    quantized = shutil.copytree(inputs["model"], tmp_path / "q")
    config = json.loads((quantized / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (quantized / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(BadInput, match="is quantized"):
        run(make_spec({**inputs, "model": str(quantized)}, {"kind": "depth"}), tmp_path, silent)


def test_rows_that_are_not_looked_at_are_told(inputs: dict[str, str], tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", cut=3)
    events = Events()
    spec = make_spec({**inputs, "dataset": str(dataset)}, {"kind": "magnitude"})
    assert len(make_plan(spec, events, None).train_rows) == 37
    told = {fields["name"]: fields["detail"] for event, fields in events if event == "phase"}
    assert "37 rows; 0 longer than 128 tokens, 3 cut off by their token limit" in told["rows"]
    assert "validation rows" not in told  # all of them are
