"""Quantization-aware training and PEQA as a stage: a distillation run on rounded weights.

The student computes with its rounded weights in every step of the one training loop, whatever
its loss; what is exported is exactly the grid that it was trained on.
"""

from pathlib import Path

from trainer.compress.fake_quant import Quantized, export, prepare
from trainer.compress.heal import keep_zeros, train_spec, with_threads
from trainer.compress.outcome import Outcome
from trainer.data import read_records
from trainer.events import Emit
from trainer.loading import load_model
from trainer.preparation import make_objective
from trainer.preparation import prepare as prepare_training
from trainer.spec import QuantizeTrain
from trainer.student import Student
from trainer.training import fit

WHAT = {
    "weights": "QAT: weights were trained through their rounding",
    "scales": "PEQA: weights were rounded once, then their scales alone were trained",
}


def run(
    stage: QuantizeTrain,
    source: Path,
    start: Path,
    dataset: Path,
    directory: Path,
    threads: int | None,
    emit: Emit,
) -> Outcome:
    """Train the model of `source` quantized, towards the one of `start`; resumes from the
    checkpoints under `directory`. The outcome saves itself in compressed-tensors' format, in the
    source's dtype but for the packed weights."""
    quantized = Quantized(stage.scheme, stage.group_size, stage.train)
    training = train_spec(with_threads(stage.training, threads), source, start, dataset)
    records = read_records(dataset, "train")
    prepared = prepare_training(training, records, read_records(dataset, "validation"), emit)
    objective = make_objective(prepared, emit)
    prepare(prepared.model, quantized)
    student = Student(prepared.model, objective, training.optimization.precision)
    # codes that are zero stay so by themselves; weights that a mask took out must be held
    held = keep_zeros(source) if stage.train == "weights" else None
    trainer = fit(prepared, student, directory / "checkpoints", emit, held)
    model, dtype = prepared.model.eval(), load_model(source).dtype
    losses = [loss for _, loss in trainer.history.losses]
    details = {
        "scheme": stage.scheme,
        "trained": stage.train,
        "steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "format": "compressed-tensors",
    }
    return Outcome(
        model, details, (WHAT[stage.train],), lambda path: export(model, quantized, path, dtype)
    )
