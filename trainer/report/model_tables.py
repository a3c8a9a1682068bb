"""The tables about models: what they are, what made them, and whether a stage was let through."""

import math
from collections.abc import Iterable

from trainer.compress.report import StageReport
from trainer.report import cells, text
from trainer.report.cells import Cell, label, missing
from trainer.report.chain import Chain, ModelRow
from trainer.report.derive import Derived
from trainer.report.figures import MEAN, ModelFigures
from trainer.report.grid import Table, grid

UNSIZED = "the bytes of one of the two are not known"


def models_table(derived: Derived) -> Table:
    """One row per model: how good, how big, how fast."""
    columns = [
        "model",
        *(f"accuracy, {skill}" for skill in derived.skills),
        *("parameters", "bytes", "bytes, of teacher's", "tokens/s", "tokens/s, vLLM"),
    ]
    rows = (_model_row(model, derived.skills) for model in derived.models)
    return grid("Models", columns, rows)


def gaps_table(derived: Derived) -> Table:
    """One row per model that the chain made: how much of the gap to the teacher it closes."""
    made = [model for model in derived.models if model.role in ("student", "stage")]
    names = [name for name in (*derived.skills, MEAN) if any(name in m.gap_closed for m in made)]
    columns = ["model", *(f"gap closed, {name}" for name in names)]
    unknown = "not measured for teacher, base and this model alike"
    rows = (
        [
            label(_name(model)),
            *(
                cells.gap(model.gap_closed[name]) if name in model.gap_closed else missing(unknown)
                for name in names
            ),
        ]
        for model in made
    )
    return grid(
        "Share of the gap between base and teacher that is closed", columns, rows if names else []
    )


def steps_table(chain: Chain, derived: Derived) -> Table:
    """One row per step that made a model: what it cost and what it gained."""
    made = [model for model in derived.models if model.role in ("student", "stage")]
    labels = {row.id: row.label for row in chain.models}
    sources = {row.id: labels.get(row.source or "") for row in chain.models}
    columns = [
        *("step", "from"),
        *(f"points gained, {skill}" for skill in derived.skills),
        *("bytes, of source's", "wall time", "teacher tokens"),
    ]
    rows = (_step_row(model, sources[model.id], derived.skills) for model in made)
    return grid("What each step cost and gained", columns, rows)


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


def _name(model: ModelFigures) -> str:
    return f"{model.label} (stopped by its gate)" if model.passed is False else model.label


def _model_row(model: ModelFigures, skills: Iterable[str]) -> list[Cell]:
    why = model.why
    row = [label(_name(model))]
    for skill in skills:
        measured = model.skills.get(skill)
        unmeasured = why.get("skills", f"{skill} was not measured for this model")
        row.append(cells.accuracy(measured) if measured else missing(unmeasured))
    return [
        *row,
        cells.short(model.parameters, why.get("parameters")),
        cells.size(model.weight_bytes, why.get("weight_bytes")),
        cells.times(model.bytes_of_teacher, UNSIZED),
        cells.speed(model.tokens_per_s, why.get("tokens_per_s")),
        cells.speed(
            model.vllm_tokens_per_s, why.get("vllm_tokens_per_s", "compared after stages only")
        ),
    ]


def _step_row(model: ModelFigures, source: str | None, skills: Iterable[str]) -> list[Cell]:
    gained = [
        cells.change(model.gained[skill])
        if skill in model.gained
        else missing("not measured before and after")
        for skill in skills
    ]
    return [
        label(model.label),
        label(source, "the chain doesn't list its source"),
        *gained,
        cells.times(model.bytes_of_source, UNSIZED),
        cells.duration(model.seconds, model.why.get("seconds", "the run told none")),
        cells.count(model.teacher_tokens, model.why.get("teacher_tokens", "the run told none")),
    ]


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
