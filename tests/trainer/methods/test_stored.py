"""A stored signal is joined by row id and refused where it isn't the student's."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from prompts.record import Record
from prompts.signal import RowSignal, SampledRow, SignalHeader, top_k_row, write_signal
from tests.trainer.conftest import TEMPLATE, make_model, make_records, make_tokenizer, save_model
from tests.trainer.methods.made import all_rows, dense, loss_of, made, spec_of
from trainer.batch import pack, pad
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model, load_tokenizer, tokenizer_file
from trainer.objectives import forward_kl
from trainer.preparation import Prepared
from trainer.spec import TrainSpec
from trainer.training import train_on

HEADER = SignalHeader(kind="top_k", width=61, teacher="t")
RECORDS = make_records(5)


def stored(place: Path, **fields: Any) -> TrainSpec:
    return spec_of(place, "stored_kl", dataset=str(place), **fields)


def write(
    place: Path, header: SignalHeader = HEADER, harm: int = 0, rows: int = 5, tau: float = 1.0
) -> None:
    """The teacher's own signal of the rows; `harm` is added to the second row's first token."""
    run, _ = made(spec_of(place, "sequence_level"), RECORDS)
    signals = {row.row: signal_of(place, header, row, tau) for row in run.rows.rows[:rows]}
    second = signals[run.rows.rows[1].row]
    second.token_ids[0] += harm
    (place / "signal").mkdir(exist_ok=True)
    write_signal(place / "signal" / "a.signal", header, reversed(signals.items()))


def signal_of(place: Path, header: SignalHeader, row: Any, tau: float) -> RowSignal:
    log_p = (dense(load_model(place / "teacher"), pad([row])) / tau).log_softmax(-1)
    tokens = row.ids[row.prompt_tokens :].copy()
    if header.kind == "sampled":
        drawn = torch.multinomial(log_p.exp(), header.width, True).numpy().astype(np.int32)
        return SampledRow(tokens, drawn, np.full(drawn.shape, 1 / header.width, np.float32))
    found, ids = log_p.topk(header.width)
    return top_k_row(tokens, ids.numpy().astype(np.int32), found.numpy())


def ready(place: Path, records: list[Record] = RECORDS, **fields: Any) -> tuple[Prepared, Any]:
    return made(stored(place, **fields), records)


def test_with_the_whole_vocabulary_stored_it_is_the_dense_kl(tmp_path: Path) -> None:
    write(tmp_path)
    run, student = ready(tmp_path)
    batch = all_rows(run)
    ours, theirs = dense(run.model, batch), dense(load_model(tmp_path / "teacher"), batch)
    expected = forward_kl(ours, theirs, 1.0).mean().item()
    # What is stored is rounded to 1/64 nat.
    assert loss_of(student, batch)[0].item() == pytest.approx(expected, rel=2e-3)


def test_rows_are_joined_by_id_in_any_order_and_packed_too(tmp_path: Path) -> None:
    write(tmp_path, HEADER.model_copy(update={"width": 8}))
    run, student = ready(tmp_path)
    rows = run.rows.rows
    alone = sum(loss_of(student, pad([row]), 1.0)[0].item() for row in rows)
    for batch in (pad(rows[::-1]), pack(rows, 64)):
        assert loss_of(student, batch, 1.0)[0].item() == pytest.approx(alone, rel=1e-5)


def test_divergences_and_mixing_are_read(tmp_path: Path) -> None:
    write(tmp_path, HEADER.model_copy(update={"width": 8}))
    losses = set()
    for fields in ({}, {"divergence": {"kind": "tvd"}}, {"cross_entropy_weight": 0.5}):
        run, student = ready(tmp_path, **fields)
        losses.add(round(loss_of(student, all_rows(run))[0].item(), 6))
    assert len(losses) == 3


def test_another_signal_is_another_run(tmp_path: Path) -> None:
    """A checkpoint of a run on other signal must not be taken up."""
    write(tmp_path, HEADER.model_copy(update={"width": 8}))
    first = ready(tmp_path)[0].digest
    assert ready(tmp_path)[0].digest == first
    write(tmp_path, HEADER.model_copy(update={"width": 9}))
    assert ready(tmp_path)[0].digest != first


def test_a_sampled_signal_is_used_for_the_forward_kl_alone(tmp_path: Path) -> None:
    write(tmp_path, HEADER.model_copy(update={"kind": "sampled", "width": 12}))
    run, student = ready(tmp_path)
    assert torch.isfinite(loss_of(student, all_rows(run))[0])
    with pytest.raises(BadInput, match="a sampled signal can't give reverse_kl"):
        ready(tmp_path, divergence={"kind": "reverse_kl"})


def test_another_temperature_is_refused_and_its_own_is_used(tmp_path: Path) -> None:
    write(tmp_path, HEADER.model_copy(update={"temperature": 2.0}), tau=2.0)
    with pytest.raises(BadInput, match=r"recorded at temperature 2.0.*set kd_temperature to 2.0"):
        ready(tmp_path)
    run, student = ready(tmp_path, kd_temperature=2.0)
    batch = all_rows(run)
    ours, theirs = dense(run.model, batch), dense(load_model(tmp_path / "teacher"), batch)
    expected = forward_kl(ours, theirs, 2.0).mean().item()
    assert loss_of(student, batch)[0].item() == pytest.approx(expected, rel=2e-3)


def test_a_dataset_without_signal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs a dataset with a stored signal"):
        ready(tmp_path)


def test_rows_without_signal_are_counted(tmp_path: Path) -> None:
    write(tmp_path, rows=3)
    with pytest.raises(BadInput, match=r"2 of 5 rows have no stored signal.*r3"):
        ready(tmp_path)


def test_a_damaged_signal_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "signal/a.signal"
    held = file.read_bytes()
    middle = len(held) // 2
    file.write_bytes(held[:middle] + bytes(100) + held[middle + 100 :])
    with pytest.raises(BadInput, match=r"signal can't be read.*a\.signal is damaged"):
        ready(tmp_path)


def test_other_tokens_are_refused_by_place(tmp_path: Path) -> None:
    write(tmp_path, harm=1)
    with pytest.raises(BadInput, match=r"row r1's signal is of other tokens.*completion token 0"):
        ready(tmp_path)


@pytest.mark.parametrize(
    ("field", "problem"),
    [("tokenizer_sha256", "another tokenizer"), ("template_sha256", "another chat template")],
)
def test_signal_of_another_tokenizer_or_template_is_refused(
    tmp_path: Path, field: str, problem: str
) -> None:
    write(tmp_path, HEADER.model_copy(update={field: "0" * 64}))
    with pytest.raises(BadInput, match=problem):
        ready(tmp_path)


def test_signal_of_the_same_tokenizer_and_template_is_taken(tmp_path: Path) -> None:
    ready_spec = spec_of(tmp_path, "sequence_level")
    tokenizer = Path(ready_spec.student, "tokenizer.json").read_bytes()
    hashes = {
        "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
        "template_sha256": hashlib.sha256(TEMPLATE.encode()).hexdigest(),
    }
    write(tmp_path, HEADER.model_copy(update=hashes))
    ready(tmp_path)


@pytest.mark.slow
def test_a_student_of_a_signal_may_be_the_next_ones_start(tmp_path: Path) -> None:
    """Tokenizer and template of the trained one are those that the signal knows, to the byte."""
    spec = spec_of(tmp_path, "stored_kl", dataset=str(tmp_path), optimization={"max_steps": 2})
    place = Path(spec.student, "tokenizer.json")
    place.write_text(json.dumps(json.loads(place.read_text())))  # no library writes it so
    tokenizer = load_tokenizer(spec.student)
    hashes = {
        "tokenizer_sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
        "template_sha256": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
    }
    write(tmp_path, HEADER.model_copy(update=hashes))
    for number in range(3):
        student = train_on(spec, RECORDS, [], tmp_path / str(number), silent)
        spec = spec.model_copy(update={"student": str(student)})


def test_a_hub_names_tokenizer_is_known_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what is trained from a hub name keeps the very file, too."""
    snapshot = tmp_path / "models--some--one/snapshots/abc"
    save_model(snapshot, make_model())
    (tmp_path / "models--some--one/refs").mkdir()
    (tmp_path / "models--some--one/refs/main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    tokenizer = make_tokenizer()
    tokenizer.name_or_path = "some/one"
    assert tokenizer_file(tokenizer) == snapshot / "tokenizer.json"
    for nowhere in ("some/other", "no name at all/", ""):
        tokenizer.name_or_path = nowhere
        assert tokenizer_file(tokenizer) is None


@pytest.mark.parametrize(
    ("header", "harm", "problem"),
    [
        ({}, 0, "can't be loaded"),
        ({}, 1, "signal is of other tokens"),
        ({"tokenizer_sha256": "0" * 64}, 0, "made with another tokenizer"),
        ({"vocabulary": 62}, 0, "more tokens than the student's head"),
    ],
)
def test_a_signal_is_looked_at_before_weights_are_read(
    tmp_path: Path, header: dict[str, Any], harm: int, problem: str
) -> None:
    write(tmp_path, HEADER.model_copy(update=header), harm)
    (tmp_path / "student/model.safetensors").write_bytes(b"none")
    with pytest.raises(BadInput, match=problem):
        made(stored(tmp_path), RECORDS)


def test_a_token_beyond_the_students_head_is_refused_though_the_header_knows_no_size(
    tmp_path: Path,
) -> None:
    """A served teacher's head may be padded further; a gather would fail in the middle of a run."""
    stored(tmp_path)
    save_model(tmp_path / "teacher", make_model(1, vocab_size=64))
    write(tmp_path, HEADER.model_copy(update={"width": 64}))
    with pytest.raises(BadInput, match=r"more tokens than the student's head: 64 against 61"):
        ready(tmp_path)
