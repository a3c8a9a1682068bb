"""The tables about stages: whether each was let through, and what its model lost on the way."""

import math

from trainer.compress.report import RowAnswers, StageReport
from trainer.measurement import Distance
from trainer.report import cells, text
from trainer.report.cells import Cell, label, missing
from trainer.report.chain import Chain, ModelRow
from trainer.report.grid import Table, grid

UNASKED = "the stage's report has no answers to the dataset's rows"
UNNAMED = "no teacher was named"


def stages_table(chain: Chain) -> Table:
    """One row per stage: its gate, its heal, and whether vLLM answers alike."""
    columns = [
        *("stage", "kind", "gate", "parameters not zero"),
        *("heal", "vLLM: mean |Δ log p|", "equal completions", "equal tokens"),
        "measuring",
    ]
    rows = (_stage_row(row) for row in chain.models if row.role == "stage")
    return grid("Stages and their gates", columns, rows)


def losses_table(chain: Chain) -> Table:
    """One row per stage: what its model lost, on rows of the dataset."""
    columns = [
        *("stage", "perplexity before", "perplexity", "KL from source", "KL from start"),
        *("likeliest token is start's", "completion tokens"),
    ]
    rows = (_losses_row(row, row.stage) for row in chain.models if row.stage is not None)
    return grid("What each stage lost, on the dataset's rows", columns, rows)


def row_answers_table(chain: Chain) -> Table:
    """One row per stage: what its model answers to the dataset's own prompts; empty where none
    answered any."""
    columns = [
        *("stage", "answer is the row's, before", "answer is the row's", "ROUGE-L before"),
        *("ROUGE-L", "verifier takes it, before", "verifier takes it", "rows"),
    ]
    rows = [
        [label(row.label), *row_answers(row.stage), label(answered_over(row.stage), UNASKED)]
        for row in chain.models
        if row.stage is not None
    ]
    known = any(row.stage and row.stage.after.row_answers for row in chain.models)
    title = "What each stage's answers lost, on prompts of the dataset's rows"
    return grid(title, columns, rows if known else [])


def teacher_table(chain: Chain) -> Table:
    """One row per stage: its model beside the teacher; empty where no teacher was named."""
    columns = [
        *("stage", "KL from teacher before", "KL from teacher"),
        *("likeliest token is teacher's, before", "likeliest token is teacher's"),
    ]
    rows = [
        [label(row.label), *from_teacher(row.stage)]
        for row in chain.models
        if row.stage is not None
    ]
    known = any(row.stage and row.stage.after.from_teacher for row in chain.models)
    return grid("How far each stage's model is from the teacher", columns, rows if known else [])


def row_answers(stage: StageReport) -> list[Cell]:
    """Exact match, ROUGE-L and accuracy, each before and after."""
    sides = (stage.before.row_answers, stage.after.row_answers)
    return [
        *(cells.share(one.exact_match if one else None, UNASKED) for one in sides),
        *(cells.estimate(one.rouge_l if one else None, None, UNASKED) for one in sides),
        *(_accuracy(one) for one in sides),
    ]


def answered_over(stage: StageReport) -> str | None:
    """The rows of those figures, and what a reader must know of the answers."""
    found = stage.after.row_answers
    if found is None:
        return None
    words = f"{text.count(found.rows)} {stage.kl_split} rows"
    if found.cut:
        answers = "answer" if found.cut == 1 else "answers"
        words += (
            f", {text.count(found.cut)} {answers} cut at {text.count(found.max_new_tokens)} tokens"
        )
    return words


def from_teacher(stage: StageReport) -> list[Cell]:
    """KL and agreement, each before and after."""
    sides = (stage.before.from_teacher, stage.after.from_teacher)
    return [
        *(cells.estimate(one.kl if one else None, None, _apart(one, stage)) for one in sides),
        *(cells.share(one.top1_agreement if one else None, _apart(one, stage)) for one in sides),
    ]


def _apart(found: Distance | None, stage: StageReport) -> str:
    return UNNAMED if found is None else why_unmeasured(stage)


def _accuracy(found: RowAnswers | None) -> Cell:
    if found is None or found.accuracy is None:
        return missing(found.why if found is not None else UNASKED)
    cell = cells.share(found.accuracy, None)
    if found.uncompared:
        why = f"{found.uncompared} answers broke the verifier and count as wrong"
        return cell.model_copy(update={"why": why})
    return cell


def _stage_row(row: ModelRow) -> list[Cell]:
    stage = row.stage
    if stage is None:
        why = row.why.get("stage", "the stage wrote no report")
        return [label(row.label), *(missing(why) for _ in range(8))]
    return [
        label(row.label),
        label(stage.kind),
        label("met" if stage.passed else "not met"),
        cells.short(stage.after.shape.nonzero, None),
        _heal(stage),
        *_serving(stage),
        cells.duration(stage.measuring_seconds, None),
    ]


def _losses_row(row: ModelRow, stage: StageReport) -> list[Cell]:
    return [
        label(row.label),
        cells.estimate(stage.before.perplexity, None, why_unmeasured(stage)),
        cells.estimate(stage.after.perplexity, None, why_unmeasured(stage)),
        kl_from_source(stage),
        kl_from_start(stage),
        agreement(stage),
        label(taken_over(stage)),
    ]


def taken_over(stage: StageReport) -> str:
    """The rows of the figures above."""
    words = text.count(stage.kl_tokens)
    return f"{words}, of {stage.kl_split} rows" if stage.kl_split else words


def kl_from_source(stage: StageReport) -> Cell:
    """With its interval, where the report has one."""
    found = stage.from_source.kl if stage.from_source else None
    return cells.estimate(found, stage.kl_from_source, why_unmeasured(stage))


def kl_from_start(stage: StageReport) -> Cell:
    """With its interval, where the report has one."""
    found = stage.after.from_start.kl if stage.after.from_start else None
    return cells.estimate(found, stage.after.kl_from_start, why_unmeasured(stage))


def agreement(stage: StageReport) -> Cell:
    """How often its likeliest token is that of the chain's first model."""
    found = stage.after.from_start
    return cells.share(found.top1_agreement if found else None, why_unmeasured(stage))


def why_unmeasured(stage: StageReport) -> str:
    """Why a figure over the dataset's rows is missing."""
    if not stage.kl_tokens:
        return "no dataset to take it over"
    if stage.kl_from_source is None or not math.isfinite(stage.kl_from_source):
        return "its outputs are not finite"
    if stage.after.from_start is None:
        return "not taken by the version that made this stage"
    return "too large for a number"


def _heal(stage: StageReport) -> Cell:
    heal = stage.heal
    if heal is None:
        return label("none")
    words = f"{heal.method}, {text.count(heal.steps)} steps, {text.duration(heal.seconds)}"
    if heal.kl_before is not None and heal.kl_after is not None:
        words += f": KL {text.small(heal.kl_before)} → {text.small(heal.kl_after)}"
    return label(words)


def _serving(stage: StageReport) -> list[Cell]:
    serving = stage.serving
    if serving is None:
        why = stage.serving_note or "not compared with vLLM"
        return [missing(why) for _ in range(3)]
    return [
        Cell(
            text=text.small(serving.mean_logprob_difference),
            below=f"at most {text.small(serving.limit)}",
        ),
        cells.percent(serving.equal_completions),
        cells.percent(serving.equal_tokens),
    ]
