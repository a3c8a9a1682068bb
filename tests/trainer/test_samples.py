"""Signals to a person: entropy and divergence in the events, the student's answers beside the
dataset's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import make_record, make_records
from tests.trainer.methods.made import all_rows, dense, made, spec_of
from tests.trainer.runs import Heard, Killed, dying_after, same
from tests.trainer.test_run_options import FEW, run
from trainer.generation import answer_greedily
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.objectives import entropy
from trainer.samples import MEASUREMENTS, TEXT_CHARACTERS, clipped, make_sampler, thinned
from trainer.training import train_on

pytestmark = pytest.mark.slow


def test_entropy_by_hand() -> None:
    even = torch.zeros(1, 8, dtype=torch.float64)
    assert entropy(even).item() == pytest.approx(torch.log(torch.tensor(8.0)).item())
    sure = torch.tensor([[0.0, -torch.inf]])
    assert entropy(sure).item() == 0
    odd = torch.tensor([[torch.log(torch.tensor(3.0)), 0.0]])
    by_hand = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert entropy(odd).item() == pytest.approx(by_hand.item())


def test_steps_and_validations_tell_entropy_and_divergence(tmp_path: Path) -> None:
    """The first step's are the base's own, on exactly the tokens that are learnt."""
    spec = spec_of(tmp_path, "kd", optimization={**FEW, "batch_size": 16, "max_steps": 1})
    heard = Heard()
    run(spec, tmp_path / "out", heard)
    base, _ = made(spec, make_records(16))
    expected = entropy(dense(base.model, all_rows(base))).mean().item()
    (step,) = heard.of("step")
    assert step["entropy"] == pytest.approx(expected, rel=1e-4)
    (held,) = heard.of("validation")
    assert held["loss"] == pytest.approx(held["forward_kl"], rel=1e-5)
    assert 0 < held["entropy"] != step["entropy"]


def test_watching_the_entropy_changes_no_gradient(tmp_path: Path) -> None:
    """It is no term of the loss."""
    base, student = made(spec_of(tmp_path, "sequence_level"))
    batch = all_rows(base)
    loss, metrics = student(lambda one: one.loss(batch, float(batch.kept)))
    assert loss.item() == pytest.approx(metrics["cross_entropy"].item(), rel=1e-6)


def test_the_text_of_minillm_does_not_count_as_its_answers(tmp_path: Path) -> None:
    """Its entropy would be added to that of the answers."""
    (tmp_path / "text.txt").write_text("w1 w2 w3\nw4 w5\n")
    wanted = {"max_new_tokens": 4, "text": str(tmp_path / "text.txt")}
    heard = Heard()
    run(spec_of(tmp_path, "minillm", optimization=FEW, **wanted), tmp_path / "out", heard)
    uniform = float(torch.tensor(61.0).log())
    assert all(0 < fields["entropy"] < uniform for fields in heard.of("step"))


def test_the_student_answers_held_out_prompts_as_it_learns(tmp_path: Path) -> None:
    looks = {**FEW, "eval_steps": 2, "sample_tokens": 8}
    spec = spec_of(tmp_path, "sequence_level", optimization=looks)
    heard = Heard()
    train_on(spec, make_records(16), make_records(5), tmp_path / "out", heard)
    told = heard.of("samples")
    assert [one["step"] for one in told] == [2, 4]
    assert [row["id"] for row in told[0]["rows"]] == ["r0", "r1", "r3"]
    record, row = make_records(5)[3], told[-1]["rows"][2]
    assert record.prompt[-1].content in row["prompt"]
    assert row["reference"] == record.completion[-1].content
    assert row["student"] == asked(tmp_path / "out/model", row["prompt"])
    kept = json.loads((tmp_path / "out/model/samples.json").read_text())
    assert kept == {"version": 1, "measurements": told}


def asked(model: Path, prompt: str) -> str:
    """What the finished student itself answers; special tokens are gone from the prompt shown."""
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    words = tokenizer(f"<s> <user> {prompt} <end> <assistant>", add_special_tokens=False)
    made = answer_greedily(loaded, [words["input_ids"]], 8, 1, end_ids(loaded, tokenizer))
    return str(tokenizer.decode(list(made.ids[0]), skip_special_tokens=True)).strip()


def test_rows_and_tokens_are_as_many_as_asked_for(tmp_path: Path) -> None:
    def told(**options: Any) -> list[dict[str, Any]]:
        heard = Heard()
        place = tmp_path / str(options)
        optimization = {**FEW, "max_steps": 1, **options}
        run(spec_of(tmp_path, "sequence_level", optimization=optimization), place, heard)
        return heard.of("samples")

    assert not told(sample_rows=0)
    assert len(told(sample_rows=9)[0]["rows"]) == 4
    (cut,) = told(sample_tokens=1)
    assert all(len(row["student"].split()) <= 1 for row in cut["rows"])
    assert not all(row["ended"] for row in cut["rows"])


def test_a_long_prompt_shortens_no_sample_but_its_own(tmp_path: Path) -> None:
    held = [make_record(0, "w1", "w2 ."), make_record(1, " ".join(["w3"] * 56), "w4 .")]
    spec = spec_of(tmp_path, "sequence_level", optimization={**FEW, "max_steps": 1})
    heard = Heard()
    train_on(spec, make_records(16), held, tmp_path / "out", heard)
    short, long = ([*row["student"].split()] for row in heard.of("samples")[0]["rows"])
    assert len(long) <= 4 < len(short)


def test_looking_changes_nothing_and_survives_a_kill(tmp_path: Path) -> None:
    often = {**FEW, "eval_steps": 1}
    spec = spec_of(tmp_path, "sequence_level", optimization=often)
    blind = spec_of(tmp_path, "sequence_level", optimization={**often, "sample_rows": 0})
    whole = run(spec, tmp_path / "whole")
    assert same(whole, run(blind, tmp_path / "blind"))
    assert not (tmp_path / "blind/model/samples.json").exists()
    with pytest.raises(Killed):
        run(spec, tmp_path / "cut", dying_after(1))
    run(spec, tmp_path / "cut")
    both = [(tmp_path / name / "model/samples.json").read_text() for name in ("whole", "cut")]
    assert both[0] == both[1]


def test_without_validation_rows_nothing_is_asked(tmp_path: Path) -> None:
    ready, _ = made(spec_of(tmp_path, "sequence_level"))
    assert make_sampler(ready) is None


def test_many_looks_are_thinned_and_long_texts_shown_by_their_ends(tmp_path: Path) -> None:
    shown = thinned([{"step": step} for step in range(101)])
    assert len(shown) == MEASUREMENTS
    assert (shown[0]["step"], shown[-1]["step"]) == (0, 100)
    assert thinned(shown) == shown
    words = " ".join(f"w{number % 40}" for number in range(900))
    assert clipped("w1 w2") == "w1 w2"
    assert len(clipped(words)) == TEXT_CHARACTERS + 3
    assert clipped(words).split(" … ") == [words[:1000], words[-1000:]]
