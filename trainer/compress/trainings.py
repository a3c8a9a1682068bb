"""The trainings within a chain, checked before its first stage: what they would refuse later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.arguments import check_reporting
from trainer.compress.heal import stored_spec
from trainer.data import TokenRow, short_enough
from trainer.errors import BadInput
from trainer.methods.stored import check_source, open_signal, select_signalled
from trainer.packing import check_packing
from trainer.preparation import check_validation
from trainer.spec import Heal, StageSpec
from trainer.student import check_size


@dataclass(frozen=True)
class Material:
    """What every training of a chain has: the first model and the dataset."""

    start: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dataset: Path
    train: Sequence[Record]
    rows: Sequence[TokenRow]
    """Of the train split, no longer than the model holds."""
    held: Sequence[TokenRow]
    """Of the validation split, likewise."""


def check_training(index: int, stage: StageSpec, given: Material) -> None:
    """Refuse a stage's heal, or its training, for what it would stop at."""
    field, training = (
        ("training", stage.training) if stage.kind in ("qat", "qaf") else ("heal", stage.heal)
    )
    if not isinstance(training, Heal):
        return
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
