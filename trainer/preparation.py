"""Everything a run needs, checked before its first step."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.adapters import add_lora
from trainer.arguments import check_reporting
from trainer.compress.fake_quant import Quantized
from trainer.compress.fake_quant import prepare as round_linears
from trainer.data import TokenRow, TokenRows, encode
from trainer.errors import BadInput
from trainer.estimate import warn_of_memory
from trainer.events import Emit, silent
from trainer.identity import digest_of
from trainer.loading import (
    check_weights,
    end_ids,
    held_tokens,
    load_model,
    load_tokenizer,
    make_model,
    outline,
    positions,
    read_config,
    stored_dtype,
)
from trainer.methods import (
    METHODS,
    Fitting,
    Setting,
    check_confidence,
    check_teacher,
    count_left,
)
from trainer.methods.method import Encode
from trainer.packing import check_packing
from trainer.plan import Plan, layout, make_plan
from trainer.spec import Optimization, TrainSpec, WithTeacher
from trainer.student import Objective, check_size


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs, checked, before its first step."""

    spec: TrainSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: TokenRows
    validation: TokenRows
    records: Sequence[Record]
    """What both were made of."""
    max_length: int
    plan: Plan
    digest: str
    """Changes with whatever would change the student's weights."""


def prepare(
    spec: TrainSpec, records: list[Record], validation: list[Record], emit: Emit
) -> Prepared:
    """Choose the rows, render and check them, make the plan, and only then load the student: what
    dataset, tokenizers and configurations can't do is said before weights are read."""
    optimization, method = spec.optimization, METHODS[spec.method]
    check_reporting(optimization)
    check_validation(optimization, validation)
    chosen = method.select(spec, records)
    if spec.weight_by == "confidence":
        check_confidence(chosen)
    torch.set_num_threads(optimization.threads or len(os.sched_getaffinity(0)))
    if read_config(spec.student).get("quantization_config"):
        raise BadInput(
            f"{spec.student} is quantized", "Packed weights can't be trained. Start before that."
        )
    tokenizer = load_tokenizer(spec.student)
    if isinstance(spec, WithTeacher):
        check_teacher(spec, tokenizer, emit)
    shape = outline(spec.student)
    check_size("student", shape, tokenizer)
    ends, limit = end_ids(shape, tokenizer), _limit(shape, spec, emit)
    rows = method.rows(spec, chosen, _encoder(tokenizer, limit, ends, spec.weight_by))
    rows = count_left(rows, records, chosen)
    _check_weighed(rows)
    held, held_rows = _held(spec, validation, _encoder(tokenizer, limit, ends), emit)
    check_validation(optimization, held_rows.rows)
    _tell_rows(rows, held_rows, limit, emit)
    method.check(spec, Fitting((*rows.rows, *held_rows.rows), tokenizer, shape))
    plan = make_plan(rows.rows, optimization, _ranks())
    warn_of_memory(spec, rows, plan, emit)
    digest = digest_of(spec, rows, chosen, held_rows, _ranks())
    how = ", its weights at random" if spec.initial == "random" else ""
    emit("phase", {"name": "load", "detail": f"student {spec.student}{how}"})
    model = _load_student(spec)
    check_weights(spec.student, model)
    if optimization.packing:
        check_packing("student", model)
    _adapt(model, spec, emit)
    both = [*chosen, *held]
    return Prepared(spec, model, tokenizer, rows, held_rows, both, limit, plan, digest)


def make_objective(run: Prepared, emit: Emit, closing: ExitStack) -> Objective:
    """The method's, over training and validation rows; loads a teacher where it has one. What must
    end with the run is left to `closing`."""
    setting = Setting(
        run.model,
        run.tokenizer,
        (*run.rows.rows, *run.validation.rows),
        run.records,
        end_ids(run.model, run.tokenizer),
        run.max_length,
        run.spec.optimization.batch_size,
        layout(run.spec.optimization),
        closing,
        emit,
    )
    return METHODS[run.spec.method].objective(run.spec, setting)


def rounding_of(spec: TrainSpec) -> Quantized | None:
    """How the student computes while it is trained, where it is quantized then."""
    asked = spec.quantize
    if asked is None:
        return None
    return Quantized(asked.scheme, asked.group_size, stored=stored_dtype(spec.student))


def fresh_student(spec: TrainSpec) -> PreTrainedModel:
    """The student as it is before its first step, with its adapters or its rounding."""
    model = _load_student(spec)
    _adapt(model, spec, silent)
    return model


def _load_student(spec: TrainSpec) -> PreTrainedModel:
    if spec.initial == "random":
        return make_model(spec.student, spec.optimization.seed)
    # weights move by less than half precision can hold; one that is stored wider stays so
    wide = torch.promote_types(stored_dtype(spec.student), torch.float32)
    return load_model(spec.student, dtype=wide)


def _encoder(
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    ends: frozenset[int],
    weight_by: str = "none",
) -> Encode:
    def run(records: Sequence[Record]) -> TokenRows:
        made = encode(records, tokenizer, max_length, ends)
        if weight_by == "none":
            return made
        weights = {record.id: record.confidence or 0.0 for record in records}
        weighed = tuple(replace(row, weight=weights[row.row]) for row in made.rows)
        return replace(made, rows=weighed)

    return run


def _held(
    spec: TrainSpec, validation: list[Record], encode: Encode, emit: Emit
) -> tuple[list[Record], TokenRows]:
    """Validation rows that the method can use; none is no reason not to train."""
    method = METHODS[spec.method]
    try:
        held = method.select(spec, validation) if validation else []
        rows = method.rows(spec, held, encode) if held else TokenRows((), 0, 0)
        return held, count_left(rows, validation, held)
    except BadInput as error:
        emit("warning", {"detail": f"no validation loss: {error.title}"})
        return [], TokenRows((), 0, 0)


def _check_weighed(rows: TokenRows) -> None:
    """A run in which no token counts would look like one that learns nothing."""
    if not any(row.weight > 0 for row in rows.rows):
        raise BadInput(
            "no row has a weight",
            f"All {len(rows.rows)} rows weigh nothing: their confidence is 0. Set weight_by to "
            "none, or look at the dataset's answers.",
        )


def check_validation(optimization: Optimization, rows: Sequence[Record | TokenRow]) -> None:
    """BadInput where a run is to be judged by validation rows and has none."""
    for name, asked in (
        ("keep best", optimization.keep == "best"),
        ("patience", optimization.patience is not None),
    ):
        if asked and not rows:
            raise BadInput(
                f"optimization.{name.replace(' ', ': ')} needs a validation split",
                "The dataset has no validation rows to choose by that this method can use. Build "
                "it with some.",
            )


def _adapt(model: PreTrainedModel, spec: TrainSpec, emit: Emit) -> None:
    if spec.lora is not None:
        torch.manual_seed(spec.optimization.seed)
        add_lora(model, spec.lora, emit)
    quantized = rounding_of(spec)
    if quantized is not None:
        round_linears(model, quantized)
    if spec.optimization.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _tell_rows(rows: TokenRows, validation: TokenRows, max_length: int, emit: Emit) -> None:
    kept = f"{len(rows.rows)} rows, {rows.completion_tokens} completion tokens"
    emit("phase", {"name": "rows", "detail": f"{kept}; {rows.left_out(max_length)}"})
    if validation.too_long + validation.cut + validation.unsuited:
        told = f"{len(validation.rows)} rows; {validation.left_out(max_length)}"
        emit("phase", {"name": "validation rows", "detail": told})
    if not validation.rows:
        emit("warning", {"detail": "the dataset has no validation rows: no validation loss"})


def _limit(model: PreTrainedModel, spec: TrainSpec, emit: Emit) -> int:
    """Positions beyond a model's own were never trained, or don't exist."""
    limit = spec.optimization.max_length
    sides = {"student": held_tokens(model)}
    if isinstance(spec, WithTeacher) and spec.one_vocabulary:
        sides["teacher"] = positions(spec.teacher)
    for side, held in sides.items():
        if held is not None and held < limit:
            emit("warning", {"detail": f"max_length {limit} is cut to the {side}'s {held}"})
            limit = held
    return limit


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
