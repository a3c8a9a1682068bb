"""Every method: packed rows cost what padded ones do, passes that are added up what one pass does,
rows that don't count add nothing, and a row's weight is in all that it costs."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prompts.record import Record
from tests.trainer.conftest import save_model
from tests.trainer.methods.every import FIELDS, records_of, training_by
from tests.trainer.methods.made import NOW, made
from trainer.batch import Batch, silence
from trainer.data import TokenRow
from trainer.loading import load_model
from trainer.methods import METHODS
from trainer.plan import layout
from trainer.spec import TrainSpec, WithTeacher
from trainer.student import Student

pytestmark = pytest.mark.slow

ROWS = 9


def test_every_method_is_here() -> None:
    assert FIELDS.keys() == METHODS.keys()


def ready(
    spec: TrainSpec, records: list[Record] | None = None
) -> tuple[tuple[TokenRow, ...], Student]:
    if isinstance(spec, WithTeacher):  # a teacher stays in the width that it was saved in
        save_model(Path(spec.teacher), load_model(spec.teacher).double())
    run, student = made(spec, records or records_of(spec.method, ROWS))
    return run.rows.rows, student.double()


def step(
    student: Student, parts: Sequence[Sequence[TokenRow]], spec: TrainSpec, quiet: int = 0
) -> tuple[float, list[Tensor]]:
    """Loss and gradients of an optimizer step, as the loop makes them; `quiet` passes have rows of
    which no token counts."""
    batches = [layout(spec.optimization)(list(part)) for part in parts]
    batches += [silence(batches[0]) for _ in range(quiet)]
    if student.objective.passes is not None:
        with torch.no_grad():
            batches = student.objective.passes(student, batches, NOW)
    student.zero_grad()
    total = 0.0
    for batch in batches:
        count = float(sum(other.kept for other in batches if other.share == batch.share))
        loss = student(lambda one, b=batch, c=count: one.loss(b, c))[0]
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in student.parameters() if p.grad is not None]


def close(first: tuple[float, list[Tensor]], second: tuple[float, list[Tensor]]) -> None:
    """All but the order of sums is the same, and that counts for nothing in fp64."""
    assert second[0] == pytest.approx(first[0], rel=1e-12)
    assert len(first[1]) == len(second[1]) > 0
    for ours, theirs in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", FIELDS)
def test_packed_accumulated_and_whole_are_one(tmp_path: Path, method: str) -> None:
    with (
        training_by(tmp_path, method) as spec,
        training_by(tmp_path, method, packing=True) as packing,
    ):
        rows, student = ready(spec)
        whole = step(student, [rows], spec)
        assert any(float(gradient.abs().max()) > 0 for gradient in whole[1])
        # Unequal parts: a mean of means would be another number.
        close(whole, step(student, [rows[:2], rows[2:]], spec))
        close(whole, step(student, [rows], spec, quiet=1))
        _, packed = ready(packing)
        batches: list[Batch] = [layout(packing.optimization)(list(rows))]
        assert batches[0].segments is not None
        close(whole, step(packed, [rows], packing))


@pytest.mark.parametrize("method", FIELDS)
def test_a_rows_confidence_weighs_all_that_it_costs(tmp_path: Path, method: str) -> None:
    """Each term, features, what is drawn for it and its prompt. A text is no row's."""
    changed = {"text": None} if method == "minillm" else {}
    sure = [
        record.model_copy(update={"confidence": (1.0, 0.5, 0.0)[number % 3]})
        for number, record in enumerate(records_of(method, ROWS))
    ]
    confidence = {record.id: record.confidence for record in sure}
    with (
        training_by(tmp_path, method, changed) as plain,
        training_by(tmp_path, method, {**changed, "weight_by": "confidence"}) as weighing,
    ):
        rows, student = ready(plain, sure)
        each = [
            (confidence[row.row.partition("#")[0]] or 0) * summed(student, [row], plain)
            for row in rows
        ]
        weighed, student = ready(weighing, sure)
        found = summed(student, weighed, weighing)
    assert found == pytest.approx(sum(each), rel=1e-10)
    assert found != pytest.approx(0)


def summed(student: Student, rows: Sequence[TokenRow], spec: TrainSpec) -> float:
    """Of all that a step learns from these rows, divided by nothing."""
    batches = [layout(spec.optimization)(list(rows))]
    with torch.no_grad():
        if student.objective.passes is not None:
            batches = student.objective.passes(student, batches, NOW)
        return sum(float(student(lambda one, b=b: one.loss(b, 1.0))[0]) for b in batches)
