"""The trainings within a chain, checked before its first stage: what they would refuse later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.arguments import check_reporting
from trainer.compress.heal import stored_spec
from trainer.data import TokenRow, short_enough
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.methods.method import Fitting
from trainer.methods.stored import (
    FOLDER,
    check_signal,
    check_source,
    open_signal,
    select_signalled,
)
from trainer.packing import check_packing
from trainer.preparation import check_validation
from trainer.spec import CompressSpec, Heal, StageSpec
from trainer.student import check_size


@dataclass(frozen=True)
class Material:
    """What every training of a chain has: the first model and the dataset."""

    start: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dataset: Path
    train: Sequence[Record]
    validation: Sequence[Record]
    rows: Sequence[TokenRow]
    """Of the train split, no longer than the model holds."""
    held: Sequence[TokenRow]
    """Of the validation split, likewise."""


def choose_methods(spec: CompressSpec, given: Material, emit: Emit) -> CompressSpec:
    """With a method for each training that names none, which is told: stored_kl where the dataset
    has a signal of the rows that it would learn from, else forward_kl."""
    open_ones = [
        (index, field, training)
        for index, stage in enumerate(spec.stages)
        for field, training in trainings_of(stage)
        if training.method is None
    ]
    if not open_ones:
        return spec
    fault, told, stages = _signal_fault(given), [], list(spec.stages)
    for index, field, training in open_ones:
        why = fault or _validation_fault(training, given)
        method = "forward_kl" if why else "stored_kl"
        chosen = training.model_copy(update={"method": method})
        stages[index] = stages[index].model_copy(update={field: chosen})
        told.append(f"stages[{index}].{field}: {method}, since {why or 'the dataset has a signal'}")
    emit("phase", {"name": "heals", "detail": "\n".join(told)})
    return spec.model_copy(update={"stages": tuple(stages)})


def trainings_of(stage: StageSpec) -> Iterator[tuple[str, Heal]]:
    """Field and settings of a stage's own trainings."""
    if stage.heal is not None:
        yield "heal", stage.heal
    if stage.kind in ("qat", "qaf"):
        yield "training", stage.training


def _signal_fault(given: Material) -> str | None:
    """Why the dataset's signal can't be learnt from; None where it can."""
    if not (given.dataset / FOLDER).exists():
        return "the dataset has no signal"
    asked = Heal(method="stored_kl")
    try:
        _check_signal(asked, given)
        spec = stored_spec(asked, given.start, given.dataset)
        with open_signal(spec) as reader:
            held = [row for row in given.held if row.row in reader]
        rows = (*given.rows, *held)
        check_signal(spec, Fitting(rows, given.tokenizer, given.model))
    except BadInput as error:
        return error.title
    return None


def _validation_fault(training: Heal, given: Material) -> str | None:
    """Where it is judged by validation rows, they need a signal as well."""
    try:
        check_validation(training.optimization, _signalled(training, given))
    except BadInput:
        return "rows of the validation split have no stored signal"
    return None


def _signalled(training: Heal, given: Material) -> list[Record]:
    """The validation rows, or none where one lacks a signal, as a training takes them."""
    try:
        asked = stored_spec(training, given.start, given.dataset)
        return select_signalled(asked, given.validation)
    except BadInput:
        return []


def check_training(index: int, stage: StageSpec, given: Material) -> None:
    """Refuse a stage's heal, or its training, for what it would stop at."""
    for field, training in trainings_of(stage):
        try:
            _check_run(training, given)
            if training.method == "stored_kl":
                _check_signal(training, given)
        except BadInput as error:
            raise BadInput(f"stages[{index}].{field}: {error.title}", error.detail) from error


def _check_run(training: Heal, given: Material) -> None:
    optimization = training.optimization
    check_reporting(optimization)
    short_enough(given.rows, optimization.max_length)
    held = [row for row in given.held if len(row.ids) <= optimization.max_length]
    check_validation(optimization, held)
    check_size("model", given.model, given.tokenizer)
    if optimization.packing:
        check_packing("model", given.model)


def _check_signal(training: Heal, given: Material) -> None:
    """One of every row is needed, made with the model's own tokenizer."""
    asked = stored_spec(training, given.start, given.dataset)
    select_signalled(asked, given.train)
    with open_signal(asked) as reader:
        check_source(reader.header, given.tokenizer)
