"""The tables about models: what they are, what they take to run, and what made them."""

from collections.abc import Iterable

from trainer.report import cells
from trainer.report.cells import Cell, label, missing
from trainer.report.chain import Chain
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


def costs_table(derived: Derived) -> Table:
    """One row per model: what it takes to run; empty where nothing was timed."""
    columns = [
        *("model", "prefill tokens/s", "decode tokens/s", "peak memory"),
        *("prefill tokens/s, vLLM", "decode tokens/s, vLLM"),
    ]
    models = derived.models
    timed = any(one.prefill_tokens_per_s or one.vllm_prefill_tokens_per_s for one in models)
    rows = map(_cost_row, models if timed else ())
    return grid("Speed and memory", columns, rows)


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


def _cost_row(model: ModelFigures) -> list[Cell]:
    untimed = model.why.get("tokens_per_s", "not timed when this model was measured")
    unserved = model.why.get("vllm_tokens_per_s", "compared after stages only")
    return [
        label(_name(model)),
        cells.speed(model.prefill_tokens_per_s, untimed),
        cells.speed(model.decode_tokens_per_s, untimed),
        cells.size(model.peak_memory_bytes, untimed),
        cells.speed(model.vllm_prefill_tokens_per_s, unserved),
        cells.speed(model.vllm_decode_tokens_per_s, unserved),
    ]
