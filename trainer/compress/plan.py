"""A compression checked from end to end before anything is spent."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.compress.expected import Expected
from trainer.compress.forecast import forecast, tell
from trainer.compress.measured import Split, make_measuring, spread
from trainer.compress.measuring import Measuring
from trainer.compress.moments import Shared
from trainer.compress.points import lay_out
from trainer.compress.trainings import Material, check_training, choose_methods
from trainer.compress.vllm_server import Engine, find_engine
from trainer.data import TokenRow, encode, read_records, render_asked
from trainer.errors import BadInput
from trainer.evaluate import fitting_prompts
from trainer.events import Emit
from trainer.loading import (
    NO_LIMIT,
    check_weights,
    end_ids,
    held_tokens,
    load_model,
    load_tokenizer,
    read_config,
)
from trainer.methods.selection import complete, count_left
from trainer.spec import CompressSpec, StageSpec, read_rows
from trainer.spec.compress import PACKING
from trainer.student import check_head

SERVING_PROMPTS = 200
SERVING_NEW_TOKENS = 64
LEAST_ROWS = 8
LEAST_TOKENS = 64
"""Of calibration, under which it is refused."""


@dataclass(frozen=True)
class Plan:
    """What a chain needs, loaded and checked."""

    spec: CompressSpec
    """With what it left to be chosen."""
    start: Path
    dataset: Path
    train_rows: tuple[TokenRow, ...]
    measuring: Measuring
    engine: Engine | None
    """The vLLM that stands here."""
    expected: tuple[Expected, ...]
    """What each model to be made should be."""
    shared: Shared = field(default_factory=Shared)
    """Statistics of a calibration pass, for all stages on one model."""

    def calibration(self, stage: StageSpec) -> tuple[TokenRow, ...]:
        """The stage's rows of the train split, evenly spread over it."""
        return spread(self.train_rows, stage.calibration_rows)

    def rows_seen(self, stage: StageSpec) -> int:
        """How many of them it looks at."""
        # svd's errors are those of outputs, whatever it scales by
        seen = stage.kind == "svd" or looks_at_rows(stage)
        return len(self.calibration(stage)) if seen else 0


def make_plan(spec: CompressSpec, emit: Emit, vllm_python: Path | None) -> Plan:
    """Load what is asked for; raises BadInput where any stage couldn't be run."""
    torch.set_num_threads(spec.threads or len(os.sched_getaffinity(0)))
    start, dataset = _paths(spec)
    emit("phase", {"name": "load", "detail": str(start)})
    tokenizer, model = load_tokenizer(start), load_model(start)
    check_weights(start, model)
    engine = find_engine(vllm_python)
    expected = check_stages(spec, model, emit, engine)
    if spec.evaluate is not None:
        questions = read_rows(Path(spec.evaluate.data), spec.evaluate.limit_per_skill)
        fitting_prompts(questions, tokenizer, held_tokens(model))
    train, held = read_records(dataset, "train"), read_records(dataset, "validation")
    rows = _encoded("rows", train, tokenizer, model, emit)
    held_rows = _encoded("validation rows", held, tokenizer, model, emit) if held else ()
    if not rows:
        raise BadInput(
            f"{dataset} has no train rows that {start} can be asked whole",
            f"Calibration looks at them. Of {len(train)} rows, those cut off by their token limit "
            f"or longer than {held_tokens(model)} tokens are left out. Build others.",
        )
    given = Material(start, model, tokenizer, dataset, train, held, rows, held_rows)
    spec = choose_methods(spec, given, emit)
    for index, stage in enumerate(spec.stages):
        check_calibration(index, stage, spread(rows, stage.calibration_rows))
        check_training(index, stage, given)
    stages = [point.stage for point in lay_out(spec)]
    served = spec.serve_check and any(map(is_served, stages, expected))
    splits = (Split("validation", held, held_rows), Split("train", train, rows))
    measuring = make_measuring(spec, start, dataset, tokenizer, splits, emit)
    if served:
        prompts = serving_prompts([*held, *train], tokenizer, model)
        measuring = replace(measuring, serving_prompts=prompts)
        _check_engine(engine, expected)
    return Plan(spec, start, dataset, rows, measuring, engine, expected)


def check_stages(
    spec: CompressSpec, model: PreTrainedModel, emit: Emit, engine: Engine | None
) -> tuple[Expected, ...]:
    """Refuse, before the first stage, what a later one couldn't do; say what is to be expected of
    each model to be made, and whether the vLLM that stands here loads it."""
    check_head(model)
    for index, stage in enumerate(spec.stages):
        if stage.kind in PACKING:
            _check_quantization(index, stage)
    found = forecast(spec, model, engine.wheel if engine is not None else None)
    emit("phase", {"name": "plan", "detail": tell(spec, found)})
    return tuple(one.expected for one in found)


def check_calibration(index: int, stage: StageSpec, rows: Sequence[TokenRow]) -> None:
    """Statistics of next to nothing say nothing."""
    tokens = sum(len(row.ids) for row in rows)
    if not looks_at_rows(stage) or (len(rows) >= LEAST_ROWS and tokens >= LEAST_TOKENS):
        return
    raise BadInput(
        f"stages[{index}].calibration_rows: {len(rows)} rows of {tokens} tokens are too few",
        f"{stage.kind} looks at activations and needs at least {LEAST_ROWS} rows and "
        f"{LEAST_TOKENS} tokens. Raise calibration_rows, or build a larger dataset.",
    )


def is_served(stage: StageSpec, expected: Expected) -> bool:
    """Whether the serving check tries its model: one that isn't stored as dense ones are, or one
    that is there to be measured."""
    return expected.of_its_own_form or stage.kind == "evaluate"


def looks_at_rows(stage: StageSpec) -> bool:
    """Whether a stage's result depends on calibration rows."""
    if stage.kind == "svd":
        return stage.scaling != "none" or stage.max_loss_increase is not None
    if stage.kind == "ptq":
        return stage.algorithm != "rtn"
    return stage.kind not in ("magnitude", "tensor", "qat", "qaf", "heal", "evaluate")


def _paths(spec: CompressSpec) -> tuple[Path, Path]:
    if spec.model is None or spec.dataset is None:
        raise BadInput(
            "a compression needs a model and a dataset",
            "Name both: `model`, a directory, and `dataset`, whose rows calibrate the stages.",
        )
    start = Path(spec.model)
    if not start.is_dir():
        raise BadInput(
            f"{start} is not a model directory",
            "Stages work on files; download a hub model to a directory first.",
        )
    if read_config(start).get("quantization_config"):
        raise BadInput(
            f"{start} is quantized", "Packed weights can't be changed. Start from before that."
        )
    return start, Path(spec.dataset)


def _check_quantization(index: int, stage: StageSpec) -> None:
    if stage.heal is not None:
        raise BadInput(
            f"stage {index} ({stage.kind}) can't be healed",
            "Its weights are packed integers. Heal the stage before it instead.",
        )
    if importlib.util.find_spec("llmcompressor") is None:
        raise BadInput(
            f"stage {index} ({stage.kind}) needs llmcompressor",
            "Install the extra: pip install 'retort-distill[quantize]'.",
        )


def _encoded(
    name: str,
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    emit: Emit,
) -> tuple[TokenRow, ...]:
    """Rows that the model can be asked whole, perhaps none; how many are not is told."""
    chosen, held = complete(records), held_tokens(model)
    made = encode(chosen, tokenizer, NO_LIMIT, end_ids(model, tokenizer))
    kept = tuple(row for row in made.rows if len(row.ids) <= (held or NO_LIMIT))
    fitting = replace(made, rows=kept, too_long=len(made.rows) - len(kept))
    rows = count_left(fitting, records, chosen)
    if rows.too_long + rows.cut:
        emit("phase", {"name": name, "detail": f"{len(rows.rows)} rows; {rows.left_out(held)}"})
    return rows.rows


def serving_prompts(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> tuple[tuple[int, ...], ...]:
    """Different prompts, held-out ones first, that leave room for an answer."""
    some = {(record.prompt, record.tools): record for record in records[: 20 * SERVING_PROMPTS]}
    limit = (held_tokens(model) or NO_LIMIT) - SERVING_NEW_TOKENS - 1
    rendered = render_asked(list(some.values())[: 4 * SERVING_PROMPTS], tokenizer)
    fitting = [tuple(ids) for ids in rendered if len(ids) <= limit]
    if not fitting:
        raise BadInput(
            "no prompt is short enough for the serving check",
            f"The shortest leaves no room for {SERVING_NEW_TOKENS} tokens. Set serve_check: false.",
        )
    return tuple(fitting[:SERVING_PROMPTS])


def _check_engine(engine: Engine | None, expected: Sequence[Expected]) -> None:
    factorizes = any(one.factorized for one in expected)
    if engine is not None and factorizes and not engine.lowrank:
        raise BadInput(
            f"{engine.python} can't serve factorized models",
            "Install retort-lowrank beside its vLLM, or set serve_check: false.",
        )
