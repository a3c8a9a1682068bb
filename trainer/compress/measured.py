"""What the models of a chain are measured on, and beside whom; checked before anything is spent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from prompts.record import Record
from trainer.compress.answers import AskedRows
from trainer.compress.measuring import Measuring, digest_measuring
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.judging import checks_of, verifier_or_why
from trainer.loading import NO_LIMIT, check_weights, held_tokens, load_model, load_tokenizer
from trainer.methods.teacher import check_vocabularies
from trainer.spec import CompressSpec
from trainer.student import check_head, check_size

KL_ROWS = 256
"""Rows that KLs are means over, at most."""
LEAST_ROWS = 2
"""Fewer have no interval: one row's figure would stand as if it were certain."""
BATCH_ROWS = 16
"""Of answers, where no evaluation says another number."""


@dataclass(frozen=True)
class Split:
    """A split's records, and the rows of those that a model can be asked whole."""

    name: str
    records: Sequence[Record]
    rows: Sequence[TokenRow]


def make_measuring(
    spec: CompressSpec,
    start: Path,
    dataset: Path,
    tokenizer: PreTrainedTokenizerBase,
    splits: Sequence[Split],
    emit: Emit,
) -> Measuring:
    """On the first of `splits` that has rows enough. Raises BadInput for a teacher that no KL can
    be taken from, and where no split has enough."""
    teacher = Path(spec.teacher) if spec.teacher is not None else None
    limit = check_teacher(teacher, tokenizer) if teacher is not None else NO_LIMIT
    fitting = [replace(one, rows=[r for r in one.rows if len(r.ids) <= limit]) for one in splits]
    taken = _enough(fitting, dataset, emit)
    rows = spread(taken.rows, KL_ROWS)
    return Measuring(
        start=start,
        evaluate=spec.evaluate,
        rows=rows,
        split=taken.name,
        serving_prompts=(),
        digest=digest_measuring(dataset, spec),
        asked=_asked(spec, dataset, taken.records, rows, emit),
        teacher=teacher,
    )


def check_teacher(teacher: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens it holds. BadInput where it is no model whose outputs can be compared token
    by token with those of a model with that tokenizer."""
    if not teacher.is_dir():
        raise BadInput(
            f"teacher: {teacher} is not a model directory",
            "Name the directory of a model with the vocabulary of `model`, or leave it out.",
        )
    try:
        remedy = "name a teacher of the model's family, or leave it out"
        check_vocabularies(tokenizer, load_tokenizer(teacher), remedy)
        model = load_model(teacher)
        check_weights(teacher, model)
        check_head(model)
        check_size("teacher", model, tokenizer)
    except BadInput as error:
        raise BadInput(f"teacher: {error.title}", error.detail) from error
    return held_tokens(model) or NO_LIMIT


def spread(rows: Sequence[TokenRow], count: int) -> tuple[TokenRow, ...]:
    """At most `count` rows, evenly spaced: no order of the dataset favours any of them."""
    taken = min(count, len(rows))
    return tuple(rows[i * len(rows) // taken] for i in range(taken))


def _enough(splits: Sequence[Split], dataset: Path, emit: Emit) -> Split:
    for place, split in enumerate(splits):
        if len(split.rows) >= LEAST_ROWS:
            if place and splits[0].rows:
                emit("warning", {"detail": f"{_few(splits[0])}: {split.name} rows are measured on"})
            return split
    raise BadInput(
        f"{dataset} has too few rows to measure on: {'; '.join(map(_few, splits))}",
        f"{LEAST_ROWS} at least are needed for an interval, none longer than the model, and the "
        "teacher where one is named, hold. Build some.",
    )


def _few(split: Split) -> str:
    return f"{len(split.rows)} complete {split.name} row{'s' if len(split.rows) != 1 else ''}"


def _asked(
    spec: CompressSpec,
    dataset: Path,
    records: Sequence[Record],
    rows: Sequence[TokenRow],
    emit: Emit,
) -> AskedRows | None:
    if not spec.answer_rows:
        return None
    chosen, known = spread(rows, max(spec.answer_rows, LEAST_ROWS)), {r.id: r for r in records}
    checks = checks_of(dataset)
    verifier, why = verifier_or_why(checks)
    if why:
        emit("warning", {"detail": f"no accuracy on the dataset's rows: {why}"})
    return AskedRows(
        rows=chosen,
        records=tuple(known[row.row] for row in chosen),
        checks=checks,
        verifier=verifier,
        why=why,
        batch_size=spec.evaluate.batch_size if spec.evaluate is not None else BATCH_ROWS,
    )
