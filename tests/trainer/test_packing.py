"""Packed rows see nothing of each other, and cost what they cost alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.conftest import make_model, make_records
from tests.trainer.methods.made import all_rows, loss_of, made, spec_of
from trainer.batch import Batch, pack, pad, positions, sees
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.student import Student, look


def rows_of(place: Path) -> tuple[TokenRow, ...]:
    return made(spec_of(place, "sequence_level"), make_records(9))[0].rows.rows


def gradients(student: Student, batch: Batch) -> list[torch.Tensor]:
    student.zero_grad()
    loss_of(student, batch)[0].backward()
    return [p.grad.clone() for p in student.parameters() if p.grad is not None]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["sequence_level", "kd"])
def test_packed_is_padded_in_loss_and_gradient(tmp_path: Path, method: str, attention: str) -> None:
    spec = spec_of(tmp_path, method)
    run, student = made(spec, make_records(9))
    student.double()
    run.model.set_attn_implementation(attention)
    packed = pack(run.rows.rows, 40)
    assert packed.input_ids.shape[0] < 9
    first, second = gradients(student, pad(run.rows.rows)), gradients(student, packed)
    # A teacher stays in fp32, and so does the softmax of eager attention.
    tolerance = 1e-10 if (method, attention) == ("sequence_level", "sdpa") else 1e-5
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    losses = [loss_of(student, b)[0].item() for b in (pad(run.rows.rows), packed)]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


def test_a_row_knows_nothing_of_its_neighbour(tmp_path: Path) -> None:
    """Peers that pack without a mask let a row read the rows before it: another neighbour then
    changes what it sees."""
    rows = rows_of(tmp_path)[:2]
    other = replace(rows[0], ids=np.asarray((rows[0].ids + 5) % 60, np.int32))
    model = make_model()
    states = []
    with torch.no_grad():
        for neighbour in (rows[0], other):
            batch = pack([neighbour, rows[1]], 64)
            order = [row.row for row in batch.rows].index(rows[1].row) + 1
            states.append(look(model, batch).hidden[batch.segments == order])
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_positions_restart_and_padding_stays_apart() -> None:
    """Peers that count on through a packed sequence train positions that are never asked."""
    segments = torch.tensor([[1, 1, 1, 2, 2, 0]])
    assert positions(segments).tolist() == [[0, 1, 2, 0, 1, 0]]
    assert sees(segments).int().tolist()[0] == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_every_row_is_packed_once_and_whole(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    batch = pack(rows, 40)
    assert sorted(row.row for row in batch.rows) == sorted(row.row for row in rows)
    assert batch.kept == pad(rows).kept == sum(row.completion_tokens for row in rows)
    assert batch.input_ids.shape[1] <= 40


def test_packing_needs_an_attention_that_takes_its_mask(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "sequence_level"))
    run.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(BadInput, match="packing needs another attention than flash_attention_2"):
        loss_of(student, pack(run.rows.rows, 64))


def test_checkpointed_activations_change_memory_alone(tmp_path: Path) -> None:
    found: dict[bool, tuple[Any, int]] = {}
    for on in (False, True):
        spec = spec_of(tmp_path, "sequence_level", optimization={"gradient_checkpointing": on})
        run, student = made(spec)
        student.train()
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss, _ = loss_of(student, all_rows(run))
        loss.backward()
        grads = [p.grad for p in student.parameters()]
        found[on] = ((loss.detach(), grads), kept)
    torch.testing.assert_close(found[True][0], found[False][0])
    assert found[True][1] < 0.5 * found[False][1]
