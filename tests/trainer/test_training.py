"""The loop: what a step learns from, resuming, stopping, and what is left behind."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prompts.record import Kind
from tests.trainer.conftest import make_model, make_records, save_model
from tests.trainer.runs import (
    BRIEF,
    Heard,
    Killed,
    dying_after,
    furthest,
    run,
    same,
    sequence_level,
    weights,
)
from trainer.checkpoint import listing, owner, problem
from trainer.errors import BadInput, Diverged, Terminated
from trainer.events import silent
from trainer.loading import load_model, load_tokenizer
from trainer.spec import ForwardKL, Optimization
from trainer.training import train_on

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), make_model())


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the brief run, never disturbed, left everything."""
    out = tmp_path_factory.mktemp("plain")
    run(sequence_level(base), out)
    return out


@pytest.fixture(scope="module")
def plain8(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights after steps of 8 rows, one pass each."""
    return run(sequence_level(base, batch_size=8), tmp_path_factory.mktemp("plain8"))


def test_the_student_learns_and_is_left_as_a_plain_model(base: Path, tmp_path: Path) -> None:
    heard = Heard()
    run(sequence_level(base), tmp_path / "out", heard)
    model = tmp_path / "out" / "model"
    card = json.loads((model / "retort.json").read_text())
    losses = [loss for _, loss in card["losses"]]
    assert losses[-1] < 0.7 * losses[0]
    assert (card["method"], card["steps"], len(losses)) == ("sequence_level", 8, 8)
    assert heard.of("step")[-1]["step"] == 8
    assert heard.of("validation")[-1]["step"] == 8
    assert card["validation"][-1] == [8, heard.of("validation")[-1]["loss"]]
    assert load_tokenizer(model).chat_template == load_tokenizer(base).chat_template
    # Byte for byte, or a stored signal would not know it again.
    assert (model / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert load_model(model).generation_config is not None
    assert not list((tmp_path / "out").glob(".writing*"))


def test_the_seed_decides_everything(base: Path, plain: Path, tmp_path: Path) -> None:
    assert same(weights(plain / "model"), run(sequence_level(base), tmp_path / "b"))


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (1, 8), (3, 4)])
def test_accumulation_changes_nothing(
    base: Path, plain8: dict[str, Tensor], tmp_path: Path, batch_size: int, accumulation: int
) -> None:
    """The rows of a step count by their tokens, however they are dealt to passes. (3 x 4 takes 12
    rows, cut to the same 8 because steps of an epoch are of equal size.)"""
    changes = {"batch_size": batch_size, "accumulation": accumulation}
    parts = run(sequence_level(base, **changes), tmp_path / "b")
    assert furthest(plain8, parts) < 1e-4


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Dropout makes the random state part of what a checkpoint must hold."""
    dropping = save_model(tmp_path / "base", make_model(attention_dropout=0.3))
    spec = sequence_level(dropping, accumulation=2, batch_size=2)
    whole = run(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(2))
    heard = Heard()
    assert same(whole, run(spec, tmp_path / "cut", heard))
    assert any("resumed from checkpoint-6" in fields["detail"] for fields in heard.of("phase"))
    cards = [json.loads((tmp_path / n / "model/retort.json").read_text()) for n in ("whole", "cut")]
    assert cards[0]["losses"] == cards[1]["losses"]
    assert cards[0]["validation"] == cards[1]["validation"]
    assert cards[0]["tokens_learnt"] == cards[1]["tokens_learnt"] > 0


def test_the_time_of_the_processes_before_counts(base: Path, tmp_path: Path) -> None:
    """Up to the checkpoint that a run goes on from."""
    with pytest.raises(Killed):
        run(sequence_level(base), tmp_path / "cut", dying_after(2))
    newest = listing(tmp_path / "cut/checkpoints")[-1]
    spent = torch.load(newest / "history.pt", weights_only=True)["seconds"]
    assert spent > 0
    heard = Heard()
    run(sequence_level(base), tmp_path / "cut", heard)
    card = json.loads((tmp_path / "cut/model/retort.json").read_text())
    assert card["seconds"] > spent


def test_dropout_is_at_work_in_the_resume_test(plain: Path, tmp_path: Path) -> None:
    dropping = save_model(tmp_path / "base2", make_model(attention_dropout=0.3))
    with_dropout = run(sequence_level(dropping), tmp_path / "a")
    assert not same(with_dropout, weights(plain / "model"))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_writes_a_checkpoint_and_the_run_goes_on_bit_for_bit(
    base: Path, plain: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    spec = sequence_level(base, checkpoint_steps=1000, eval_steps=4)

    def emit(event: str, fields: dict[str, Any]) -> None:
        if event == "validation" and fields["step"] == 4:
            os.kill(os.getpid(), sent)

    with pytest.raises(Terminated):
        run(spec, tmp_path / "cut", emit)
    assert [path.name for path in listing(tmp_path / "cut/checkpoints")] == ["checkpoint-5"]
    assert not (tmp_path / "cut/model").exists()
    assert same(weights(plain / "model"), run(spec, tmp_path / "cut"))


def test_sigterm_during_the_last_step_is_heard(base: Path, plain: Path, tmp_path: Path) -> None:
    def emit(event: str, fields: dict[str, Any]) -> None:
        if event == "step" and fields["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        run(sequence_level(base), tmp_path / "cut", emit)
    assert not (tmp_path / "cut/model").exists()
    assert same(weights(plain / "model"), run(sequence_level(base), tmp_path / "cut"))


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(
    base: Path, plain: Path, tmp_path: Path, harm: str
) -> None:
    spec = sequence_level(base)
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(2))
    newest = listing(tmp_path / "cut/checkpoints")[-1]
    damage(newest, harm)
    heard = Heard()
    assert same(weights(plain / "model"), run(spec, tmp_path / "cut", heard))
    assert any(f"{newest.name} is passed over" in w["detail"] for w in heard.of("warning"))
    assert any("resumed from checkpoint-3" in fields["detail"] for fields in heard.of("phase"))


def damage(directory: Path, harm: str) -> None:
    victim = directory / "optimizer.pt"
    data = victim.read_bytes()
    if harm == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        victim.write_bytes(data[:-200] + bytes([data[-200] ^ 1]) + data[-199:])
    elif harm == "delete":
        victim.unlink()
    else:
        (directory / "manifest.json").unlink()


def test_a_half_written_checkpoint_is_never_seen(base: Path, plain: Path, tmp_path: Path) -> None:
    spec = sequence_level(base)
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(1))
    half = tmp_path / "cut/checkpoints/.writing/checkpoint-6"
    shutil.copytree(tmp_path / "cut/checkpoints/checkpoint-3", half)
    (half / "optimizer.pt").write_bytes(b"half")
    assert same(weights(plain / "model"), run(spec, tmp_path / "cut"))
    later = tmp_path / "cut/checkpoints/checkpoint-6"
    assert problem(later, owner(later) or "") is None


def test_another_runs_checkpoints_are_not_taken(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(sequence_level(base), tmp_path / "cut", dying_after(2))
    other = sequence_level(base, seed=1)
    heard = Heard()
    resumed = run(other, tmp_path / "cut", heard)
    assert same(resumed, run(other, tmp_path / "fresh"))
    assert any("another spec" in fields["detail"] for fields in heard.of("warning"))


@pytest.mark.parametrize("left", ["another run's", "damaged"])
def test_a_run_keeps_its_own_checkpoints_beside_later_ones(
    base: Path, plain: Path, tmp_path: Path, left: str
) -> None:
    spec = sequence_level(base)
    run(sequence_level(base, seed=1) if left == "another run's" else spec, tmp_path / "cut")
    later = listing(tmp_path / "cut/checkpoints")
    assert [path.name for path in later] == ["checkpoint-6", "checkpoint-8"]
    shutil.rmtree(tmp_path / "cut/model")
    for path in later if left == "damaged" else []:
        damage(path, "truncate")
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(1))
    names = {path.name for path in listing(tmp_path / "cut/checkpoints")}
    others = {"checkpoint-6", "checkpoint-8"} if left == "another run's" else set[str]()
    assert names == {"checkpoint-3"} | others
    heard = Heard()
    assert same(weights(plain / "model"), run(spec, tmp_path / "cut", heard))
    assert any("resumed from checkpoint-3" in fields["detail"] for fields in heard.of("phase"))


def test_a_finished_student_is_not_trained_again(base: Path, plain: Path) -> None:
    stamp = (plain / "model/model.safetensors").stat().st_mtime_ns
    heard = Heard()
    run(sequence_level(base), plain, heard)
    assert not heard.of("step")
    assert (plain / "model/model.safetensors").stat().st_mtime_ns == stamp


def test_divergence_stops_with_the_last_finite_weights(base: Path, tmp_path: Path) -> None:
    spec = sequence_level(base, learning_rate=1e30, warmup_ratio=0.0, max_grad_norm=1e30)
    with pytest.raises(Diverged, match=r"diverged at step \d+.*Lower optimization"):
        run(spec, tmp_path / "out")
    kept = listing(tmp_path / "out/checkpoints")[-1]
    state = torch.load(kept / "pytorch_model.bin", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert not (tmp_path / "out/model").exists()


def test_the_student_is_saved_in_the_dtype_it_came_in(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", make_model().to(torch.bfloat16))
    made = run(sequence_level(base), tmp_path / "out")
    assert {tensor.dtype for tensor in made.values()} == {torch.bfloat16}
    assert load_model(tmp_path / "out/model").dtype == torch.bfloat16


def test_a_correction_holds_in_every_checkpoint(base: Path, tmp_path: Path) -> None:
    def zero_first(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("model.layers.0.mlp.up_proj.weight")[0] = 0

    spec = sequence_level(base)
    out = train_on(spec, make_records(16), [], tmp_path / "out", silent, after_step=zero_first)
    assert weights(out)["model.layers.0.mlp.up_proj.weight"][0].abs().max() == 0


def test_an_unknown_student_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no model at"):
        run(sequence_level(tmp_path / "nowhere"), tmp_path / "out")


def test_a_kl_moves_the_student_to_its_teacher(base: Path, tmp_path: Path) -> None:
    teacher = save_model(tmp_path / "teacher", make_model(seed=1))
    spec = ForwardKL(
        method="forward_kl",
        teacher=str(teacher),
        student=str(base),
        optimization=BRIEF.model_copy(update={"epochs": 5}),
    )
    heard = Heard()
    run(spec, tmp_path / "out", heard)
    losses = [
        loss for _, loss in json.loads((tmp_path / "out/model/retort.json").read_text())["losses"]
    ]
    assert losses[-1] < 0.5 * losses[0]
    assert heard.of("step")[0]["forward_kl"] == pytest.approx(losses[0], rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(base: Path, tmp_path: Path) -> None:
    spec = ForwardKL(
        method="forward_kl",
        teacher=str(base),
        student=str(base),
        optimization=BRIEF.model_copy(update={"max_steps": 1}),
    )
    heard = Heard()
    run(spec, tmp_path / "out", heard)
    first = heard.of("step")[0]
    assert first["loss"] < 1e-9
    assert first["grad_norm"] < 1e-6


CHANGES: dict[str, Any] = {
    "learning_rate": 3e-3,
    "warmup_ratio": 0.5,
    "weight_decay": 0.5,
    "batch_size": 8,
    "accumulation": 2,
    "epochs": 1,
    "max_steps": 5,
    "max_length": 20,
    "max_grad_norm": 0.01,
    "precision": "bf16",
    "seed": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_dead_option(base: Path, plain: Path, tmp_path: Path, name: str) -> None:
    changed = run(sequence_level(base, **{name: CHANGES[name]}), tmp_path / "b")
    assert not same(weights(plain / "model"), changed)


def test_options_that_watch_the_run_change_what_is_seen(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    heard = Heard()
    changes = {"checkpoint_steps": 2, "keep_checkpoints": 3, "eval_steps": 5}
    run(sequence_level(base, **changes), tmp_path, heard)
    assert steps_kept(plain) == [6, 8]
    assert steps_kept(tmp_path) == [4, 6, 8]
    assert [fields["step"] for fields in heard.of("validation")] == [5, 8]


def steps_kept(out: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in listing(out / "checkpoints")]


def test_threads_are_pinned(base: Path, plain: Path, tmp_path: Path) -> None:
    run(sequence_level(base, threads=2, max_steps=1), tmp_path)
    cards = [json.loads((out / "model/retort.json").read_text()) for out in (plain, tmp_path)]
    assert [card["threads"] for card in cards] == [1, 2]


def test_every_option_is_covered() -> None:
    watching = {"checkpoint_steps", "keep_checkpoints", "eval_steps", "threads"}
    watching |= {"sample_rows", "sample_tokens"}
    elsewhere = {"packing", "gradient_checkpointing", "keep", "patience", "report_to"}
    assert CHANGES.keys() | watching | elsewhere == Optimization.model_fields.keys()


def test_methods_differ_in_their_rows(base: Path, tmp_path: Path) -> None:
    mixed = make_records(16) + [
        r.model_copy(update={"id": f"i{r.id}"}) for r in make_records(8, Kind.IF)
    ]
    run(sequence_level(base), tmp_path / "out", records=mixed)
    card = json.loads((tmp_path / "out/model/retort.json").read_text())
    assert card["dataset"]["rows"] == 24
