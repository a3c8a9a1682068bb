"""Heals: what they are trained towards."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prompts.dataset import assemble, write_chunk
from prompts.record import Message
from prompts.signal import SignalHeader, template_sha256, tokenizer_sha256, top_k_row, write_signal
from tests.trainer.compress.chains import Events
from tests.trainer.compress.world import write_dataset, write_model
from trainer.batch import pad
from trainer.compress.chain import run
from trainer.compress.heal import unhealed
from trainer.compress.plan import make_plan
from trainer.compress.report import HealFacts, StageReport
from trainer.data import encode, read_records
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.spec import CompressSpec, Heal, Optimization

pytestmark = pytest.mark.slow

OPTIMIZATION = {"max_steps": 3, "batch_size": 8, "threads": 1, "learning_rate": 1e-3}
STORED = {"method": "stored_kl", "optimization": OPTIMIZATION}
TEMPERATURE = 2.0


def write_signalled(place: Path, model_dir: Path, seed: int, rows: int | None = None) -> Path:
    """A dataset with a signal recorded at another temperature than 1, of a teacher of `seed`."""
    dataset = write_dataset(place / f"data-{seed}-{rows}", 16, 4)
    tokenizer, model = load_tokenizer(model_dir), load_model(model_dir)
    teacher = load_model(write_model(place / f"teacher-{seed}", seed=seed), torch.float32)
    records = [*read_records(dataset, "train"), *read_records(dataset, "validation")]
    signals = []
    for row in encode(records, tokenizer, 128, end_ids(model, tokenizer)).rows[:rows]:
        with torch.no_grad():
            logits = teacher(input_ids=pad([row]).input_ids).logits[0, row.prompt_tokens - 1 : -1]
        found, ids = (logits / TEMPERATURE).log_softmax(-1).topk(8)
        tokens = row.ids[row.prompt_tokens :]
        signals.append((row.row, top_k_row(tokens, ids.numpy().astype(np.int32), found.numpy())))
    header = SignalHeader(
        kind="top_k",
        width=8,
        teacher="t",
        temperature=TEMPERATURE,
        tokenizer_sha256=tokenizer_sha256(model_dir),
        template_sha256=template_sha256(model_dir),
    )
    (dataset / "signal").mkdir()
    write_signal(dataset / "signal" / "a.signal", header, signals)
    return dataset


def make_spec(model: Path, dataset: Path, *stages: dict[str, Any]) -> CompressSpec:
    return CompressSpec(
        model=str(model), dataset=str(dataset), threads=1, serve_check=False, stages=stages
    )


def test_a_heal_takes_the_stored_signal_at_its_own_temperature(tmp_path: Path) -> None:
    """Twice in a chain, on tokenizers whose file was laid out by another program; and another
    teacher's signal heals otherwise, which shows that it is read."""
    model = write_model(tmp_path / "start")
    path = model / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8"))), "utf-8")
    stages = (
        {"kind": "magnitude", "heal": STORED},
        {"kind": "depth", "heal": STORED},
        {"kind": "qat", "group_size": 32, "training": STORED},
    )
    made = []
    for seed in (1, 2):
        dataset = write_signalled(tmp_path, model, seed)
        reports = run(make_spec(model, dataset, *stages), tmp_path / f"out-{seed}", silent)
        assert [report.heal.method for report in reports if report.heal] == ["stored_kl"] * 2
        assert all(report.heal.steps == 3 for report in reports if report.heal)
        made.append(dict(load_model(reports[0].model).named_parameters()))
    assert any(not torch.equal(made[0][name], made[1][name]) for name in made[0])


UNNAMED = {"optimization": OPTIMIZATION}
BOTH = (
    {"kind": "magnitude", "heal": UNNAMED},
    {"kind": "qat", "group_size": 32, "training": UNNAMED},
)


def named(method: str) -> tuple[dict[str, Any], ...]:
    """`BOTH`, with a method."""
    given = {"method": method, **UNNAMED}
    return ({"kind": "magnitude", "heal": given}, {**BOTH[1], "training": given})


def taken(reports: Sequence[StageReport]) -> list[str | None]:
    """What the heal of the first and the training of the second stage were made by."""
    heal, trained = reports
    assert heal.heal is not None
    assert heal.spec["heal"]["method"] == heal.heal.method
    assert trained.spec["training"]["method"] == trained.details["method"]
    return [heal.heal.method, trained.details["method"]]


def told(events: Events) -> list[str]:
    (lines,) = (fields["detail"] for _, fields in events if fields.get("name") == "heals")
    return str(lines).splitlines()


def test_a_heal_that_names_no_method_takes_the_stored_signal(tmp_path: Path) -> None:
    """Told in the plan and in the report; the same stages by name are finished then."""
    model = write_model(tmp_path / "start")
    dataset, out = write_signalled(tmp_path, model, 1), tmp_path / "out"
    reports = run(make_spec(model, dataset, *BOTH), out, events := Events())
    assert taken(reports) == ["stored_kl"] * 2
    assert told(events) == [
        "stages[0].heal: stored_kl, since the dataset has a signal",
        "stages[1].training: stored_kl, since the dataset has a signal",
    ]
    again = run(make_spec(model, dataset, *named("stored_kl")), out, events := Events())
    assert again == reports
    assert events.worked_on() == []
    assert not any(fields.get("name") == "heals" for _, fields in events)
    other = run(make_spec(model, dataset, *named("forward_kl")), out, silent)
    assert taken(other) == ["forward_kl"] * 2  # what is named is obeyed


def test_a_heal_that_names_no_method_goes_without_a_signal_that_it_can_not_use(
    tmp_path: Path,
) -> None:
    model = write_model(tmp_path / "start")
    bare, out = write_dataset(tmp_path / "bare", 16, 4), tmp_path / "out"
    reports = run(make_spec(model, bare, *BOTH), out, events := Events())
    assert taken(reports) == ["forward_kl"] * 2
    assert told(events)[0].endswith("forward_kl, since the dataset has no signal")
    run(make_spec(model, bare, *named("forward_kl")), out, events := Events())
    assert events.worked_on() == []
    whole = write_signalled(tmp_path, model, 2)
    judged = {"optimization": {**OPTIMIZATION, "eval_steps": 1, "keep": "best"}}
    cases = [
        (write_signalled(tmp_path, model, 1, rows=9), UNNAMED, "7 of 16 rows have no stored"),
        (write_signalled(tmp_path, model, 1, rows=16), judged, "of the validation split have no"),
        (other_tokens(whole, tmp_path / "other"), UNNAMED, "signal is of other tokens"),
    ]
    for dataset, heal, why in cases:
        spec = make_spec(model, dataset, {"kind": "magnitude", "heal": heal})
        made = make_plan(spec, events := Events(), None).spec.stages[0]
        assert made.heal is not None
        assert made.heal.method == "forward_kl"
        assert told(events)[0].startswith("stages[0].heal: forward_kl, since ")
        assert why in told(events)[0]
    assert make_plan(make_spec(model, whole, *BOTH), silent, None).spec.stages[0].heal == Heal(
        method="stored_kl", optimization=Optimization(**OPTIMIZATION)
    )


def other_tokens(dataset: Path, place: Path) -> Path:
    """The same rows with other completions, whose signal is not of their tokens."""
    rows = [
        row.model_copy(update={"completion": (*row.completion[:-1], longer(row.completion[-1]))})
        for split in ("train", "validation")
        for row in read_records(dataset, split)
    ]
    write_chunk(place.parent / "other.parquet", rows)
    assemble(place, [place.parent / "other.parquet"], recipe={}, seeds=len(rows), deduplicate=False)
    shutil.copytree(dataset / "signal", place / "signal")
    return place


def longer(message: Message) -> Message:
    return message.model_copy(update={"content": f"{message.content} w1"})


def test_a_heal_that_harms_is_told() -> None:
    facts = HealFacts(method="forward_kl", steps=30, seconds=1.0, kl_before=0.01, kl_after=0.02)
    (note,) = unhealed(facts)
    assert "was 0.0100 before it, 0.0200 after" in note
    for changes in ({"kl_after": 0.005}, {"method": "stored_kl"}, {"kl_before": None}):
        assert unhealed(facts.model_copy(update=changes)) == ()
    assert unhealed(None) == ()


def test_a_heal_without_signal_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = write_model(tmp_path / "start")
    bare = write_dataset(tmp_path / "bare", 16, 4)
    partly = write_signalled(tmp_path, model, 1, rows=9)
    for field, stage in (
        ("heal", {"kind": "magnitude", "heal": STORED}),
        ("training", {"kind": "qat", "group_size": 32, "training": STORED}),
    ):
        for dataset, why in (
            (bare, "stored_kl needs a dataset with a stored signal"),
            (partly, "7 of 16 rows have no stored signal"),
        ):
            spec = make_spec(model, dataset, {"kind": "depth"}, stage)
            with pytest.raises(BadInput, match=rf"stages\[1\]\.{field}: {why}"):
                run(spec, tmp_path / "out", silent)
            assert not (tmp_path / "out").exists()
    whole = write_signalled(tmp_path, model, 2)
    path = model / "tokenizer.json"
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    spec = make_spec(model, whole, {"kind": "magnitude", "heal": STORED})
    with pytest.raises(BadInput, match=r"stages\[0\]\.heal: .* with another tokenizer"):
        run(spec, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()
