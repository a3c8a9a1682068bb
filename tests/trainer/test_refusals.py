"""Inputs that can't be trained on, or only in part: said in words, before anything is spent."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from prompts.record import Kind, Record
from tests.trainer.conftest import SPECIAL, WORDS, make_model, make_record, make_records, save_model
from tests.trainer.methods.made import made, spec_of
from tests.trainer.runs import Heard
from trainer import packing
from trainer.errors import BadInput
from trainer.events import Emit, silent
from trainer.loading import load_model
from trainer.loading import make_model as configured
from trainer.packing import check_packing
from trainer.spec import TrainSpec
from trainer.training import train_on

SIZE = len(SPECIAL) + len(WORDS)
ENDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
BRIEF = {"max_steps": 2}
LONG = make_record(90, " ".join(["w1"] * 200), "w2")


def run(
    place: Path, spec: TrainSpec, held: list[Record] | None = None, emit: Emit = silent
) -> Path:
    return train_on(spec, make_records(8), held or [], place / "out", emit)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, side: str) -> None:
    spec = spec_of(tmp_path, "kd")
    model = load_model(tmp_path / side)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] = torch.nan
    model.save_pretrained(tmp_path / side)
    with pytest.raises(BadInput, match=rf"{side} has weights that are not finite.*mlp\.up_proj"):
        made(spec)


def test_what_the_rows_cant_do_is_said_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = spec_of(tmp_path, "kd", optimization={"max_length": 8})
    monkeypatch.setattr("trainer.loading.AutoModelForCausalLM.from_pretrained", pytest.fail)
    with pytest.raises(BadInput, match="short enough"):
        made(short)
    (tmp_path / "student/chat_template.jinja").write_text("{{ nothing() }}")
    with pytest.raises(BadInput, match="template"):
        made(spec_of(tmp_path, "kd"))


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("lost", ["weights", "layers"])
def test_weights_that_are_not_there_are_named_and_never_drawn(
    tmp_path: Path, side: str, lost: str
) -> None:
    spec = spec_of(tmp_path, "kd")
    if lost == "weights":
        file = tmp_path / side / "model.safetensors"
        held = load_file(file)
        del held["model.layers.0.mlp.up_proj.weight"]
        save_file(held, file, {"format": "pt"})
    else:
        file = tmp_path / side / "config.json"
        config = json.loads(file.read_text())
        more = config["num_hidden_layers"] + 1
        file.write_text(json.dumps({**config, "num_hidden_layers": more, "layer_types": None}))
    with pytest.raises(BadInput, match=rf"{side} lacks \d+ weights of its configuration"):
        made(spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": "two"},
        {"hidden_size": None},
        {"num_attention_heads": 0},
        {"dtype": "nope"},
        {"dtype": []},
        {"pad_token_id": 999},
        {"auto_map": 3},
        None,
    ],
    ids=str,
)
def test_a_configuration_of_odd_values_is_refused_in_words(
    tmp_path: Path, changes: dict[str, Any] | None
) -> None:
    place = save_model(tmp_path / "m", make_model())
    held = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps([] if changes is None else {**held, **changes}))
    with pytest.raises(BadInput, match="can't be loaded as a language model"):
        load_model(place)
    with pytest.raises(BadInput, match="configures no language model"):
        configured(place, 0)
    with pytest.raises(BadInput, match=r"configuration that loads|no JSON|no language model"):
        made(spec_of(tmp_path, "sequence_level", student=str(place)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": float("inf")},
        {"learning_rate": 0},
        {"learning_rate": -1e-3},
        {"learning_rate": float("nan")},
        {"epochs": float("inf")},
        {"max_steps": 0},
        {"seed": -1},
        {"seed": 2**32},
    ],
    ids=str,
)
def test_numbers_that_train_nothing_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"optimization\.{name}"):
        spec_of(tmp_path, "sequence_level", optimization=wrong)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("kd", {"kd_temperature": float("inf")}),
        ("kd", {"features": [{"kind": "hidden", "weight": float("inf")}]}),
        ("uld", {"weight": float("inf")}),
    ],
)
def test_infinite_weights_and_temperatures_are_refused(
    tmp_path: Path, method: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="finite number"):
        spec_of(tmp_path, method, **fields)


@pytest.mark.slow
def test_validation_rows_that_are_all_too_long_are_no_reason_not_to_train(tmp_path: Path) -> None:
    heard = Heard()
    run(tmp_path, spec_of(tmp_path, "sequence_level", optimization=BRIEF), [LONG], heard)
    assert any("no validation loss: no row is short" in w["detail"] for w in heard.of("warning"))


def cut(record: Record) -> Record:
    return record.model_copy(update={"finish_reason": "length"})


def test_rows_that_selection_leaves_out_are_told_and_recorded(tmp_path: Path) -> None:
    heard, rows = Heard(), make_records(9)
    given = [*map(cut, rows[:2]), *rows[2:5], *make_records(8, Kind.IF)[5:], LONG]
    held = [cut(rows[5]), *rows[6:]]
    spec = spec_of(tmp_path, "rationale_then_answer", optimization={"max_steps": 1})
    model = train_on(spec, given, held, tmp_path / "out", heard)
    told = {phase["name"]: phase["detail"] for phase in heard.of("phase")}
    left = "1 longer than 64 tokens, 2 cut off by their token limit, 3 that the method can't learn"
    assert told["rows"].startswith("3 rows")
    assert left in told["rows"]
    assert told["validation rows"].startswith("3 rows; 0 longer than 64 tokens, 1 cut off")
    card = json.loads((model / "retort.json").read_text())["dataset"]
    wanted = {"rows": 3, "too_long": 1, "cut": 2, "unsuited": 3}
    assert {name: card[name] for name in wanted} == wanted


@pytest.mark.parametrize("options", [{"keep": "best"}, {"patience": 1}])
@pytest.mark.parametrize("held", [[LONG], make_records(3, Kind.IF)], ids=["long", "other"])
def test_choosing_needs_validation_rows_that_the_method_can_use(
    tmp_path: Path, options: dict[str, Any], held: list[Record]
) -> None:
    spec = spec_of(tmp_path, "rationale_then_answer", optimization={**BRIEF, **options})
    with pytest.raises(BadInput, match="that this method can use"):
        run(tmp_path, spec, held)


def test_rows_that_all_weigh_nothing_are_refused(tmp_path: Path) -> None:
    rows = [row.model_copy(update={"confidence": 0.0}) for row in make_records(3)]
    with pytest.raises(BadInput, match="no row has a weight"):
        made(spec_of(tmp_path, "sequence_level", weight_by="confidence"), rows)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_student_does_not_take_its_sources_place(tmp_path: Path, side: str) -> None:
    spec = spec_of(tmp_path, "kd", optimization=BRIEF)
    shutil.copytree(tmp_path / side, tmp_path / "out/model")
    with pytest.raises(BadInput, match=f"the {side} lies where the finished student goes"):
        run(tmp_path, spec.model_copy(update={side: str(tmp_path / "out/model")}))


def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here already")
    with pytest.raises(BadInput, match="can't be a directory to train in"):
        run(tmp_path, spec_of(tmp_path, "sequence_level", optimization=BRIEF))


@pytest.mark.parametrize("there", ["a directory", "a file", "a link", "checkpoints"])
def test_what_no_training_made_is_never_replaced(tmp_path: Path, there: str) -> None:
    spec, out = spec_of(tmp_path, "sequence_level", optimization=BRIEF), tmp_path / "out"
    mine = (out / "elsewhere" if there == "a link" else out / "model") / "mine.txt"
    if there in ("a file", "checkpoints"):
        mine = out / ("model" if there == "a file" else there)
    mine.parent.mkdir(parents=True)
    mine.write_text("a thesis")
    if there == "a link":
        (out / "model").symlink_to("elsewhere")
    heard = Heard()
    with pytest.raises(BadInput, match=r"not made by a training|is in the way"):
        run(tmp_path, spec, emit=heard)
    assert not heard.of("step")
    assert mine.read_text() == "a thesis"


@pytest.mark.slow
def test_that_another_runs_student_will_be_replaced_is_said(tmp_path: Path) -> None:
    heard, spec = Heard(), spec_of(tmp_path, "sequence_level", optimization=BRIEF)
    run(tmp_path, spec, emit=heard)
    assert not any("take its place" in warning["detail"] for warning in heard.of("warning"))
    run(tmp_path, spec_of(tmp_path, "sequence_level", optimization={"max_steps": 1}), emit=heard)
    assert any("take its place" in warning["detail"] for warning in heard.of("warning"))


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["no weights", "cut weights", "lost shard", "odd card"])
def test_a_finished_student_that_is_broken_is_made_again(tmp_path: Path, harm: str) -> None:
    spec = spec_of(tmp_path, "sequence_level", optimization=BRIEF)
    model = run(tmp_path, spec)
    weights = model / "model.safetensors"
    if harm == "no weights":
        weights.unlink()
    elif harm == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "lost shard":
        load_model(model).save_pretrained(model, max_shard_size="20KB")
        weights.unlink(missing_ok=True)
        max(model.glob("model-*.safetensors")).unlink()
    else:
        (model / "retort.json").write_text("[]")
    run(tmp_path, spec)
    assert load_file(weights)
    assert "digest" in json.loads((model / "retort.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["saved", "random"])
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"temperature": 0.7, "top_p": 0.6}, {"temperature": 0.7, "top_p": 0.6, "do_sample": True}),
        ({"early_stopping": True, "length_penalty": 2.0}, {}),
    ],
)
def test_generation_settings_that_cant_be_saved_dont_lose_a_student(
    tmp_path: Path, initial: str, settings: dict[str, Any], kept: dict[str, Any]
) -> None:
    spec = spec_of(tmp_path, "sequence_level", optimization=BRIEF, initial=initial)
    told = {"eos_token_id": [3, 1], **settings}
    (tmp_path / "student/generation_config.json").write_text(json.dumps(told))
    saved = json.loads((run(tmp_path, spec) / "generation_config.json").read_text())
    del saved["transformers_version"]
    assert {n: v for n, v in saved.items() if not n.startswith("_")} == {
        "eos_token_id": [3, 1],
        **kept,
    }


def gpt2(positions: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=SIZE, n_positions=positions, n_embd=32, n_layer=2, n_head=2, **ENDS
    )
    model: PreTrainedModel = GPT2LMHeadModel(config).eval()
    return model


def recurrent() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3NextConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        initializer_range=0.5,
        **ENDS,
    )
    model: PreTrainedModel = Qwen3NextForCausalLM(config).eval()
    return model


def test_rows_are_not_packed_where_a_model_would_mix_them() -> None:
    """A recurrent state flows from row to row, quietly; others fail on the mask."""
    mamba = MambaForCausalLM(
        MambaConfig(vocab_size=SIZE, hidden_size=32, state_size=8, num_hidden_layers=2)
    )
    bloom = BloomForCausalLM(BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=2, n_head=2))
    cases = [(recurrent(), "layers of linear_attention"), (mamba, "fails"), (bloom, "fails")]
    for model, told in cases:
        with pytest.raises(BadInput, match=rf"can't keep packed rows apart.*{told}"):
            check_packing("student", model.eval())


def test_rows_that_know_of_each_other_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a model that doesn't tell what its layers are."""
    monkeypatch.setattr(packing, "KEPT_APART", {"full_attention", "linear_attention"})
    with pytest.raises(BadInput, match="next to another differs by"):
        check_packing("student", recurrent())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_is_left_to_models_that_keep_rows_apart(dtype: torch.dtype) -> None:
    for model in (make_model(), gpt2(64)):
        check_packing("student", torch.nn.Module.to(model, dtype))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_packing_is_checked_on_both_sides(tmp_path: Path, side: str) -> None:
    spec = spec_of(tmp_path, "kd", optimization={"packing": True})
    made(spec)
    save_model(tmp_path / side, recurrent())
    with pytest.raises(BadInput, match=f"the {side} can't keep packed rows apart"):
        made(spec)


def test_a_context_under_another_name_is_known(tmp_path: Path) -> None:
    """GPT-2 calls it n_positions: rows beyond it would be looked up past the end of a table."""
    save_model(tmp_path / "student", gpt2(16))
    save_model(tmp_path / "teacher", make_model())
    run_, _ = made(spec_of(tmp_path, "sequence_level"), make_records(8))
    assert run_.max_length == 16
    assert 0 < len(run_.rows.rows) == 8 - run_.rows.too_long < 8
