"""A page and a card for each model of a chain: all that was measured of it, in one place."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from trainer.compress.report import StageReport
from trainer.report import cells, text
from trainer.report.cells import Cell, label
from trainer.report.chain import Chain, ModelRow
from trainer.report.derive import Derived
from trainer.report.figures import MEAN, ModelFigures
from trainer.report.grid import Table, facts
from trainer.report.said import answers_table
from trainer.report.stage_tables import (
    agreement,
    answered_over,
    from_teacher,
    kl_from_source,
    kl_from_start,
    row_answers,
    taken_over,
    why_unmeasured,
)

FOLDER = "models"
TAGS = {"teacher": "teacher", "base": "base", "student": "distillation", "stage": "compression"}


@dataclass(frozen=True)
class ModelPage:
    """One model, its tables, and where its page stands."""

    row: ModelRow
    name: str
    """Of its files, without an ending."""
    figures: Table
    stage: Table | None
    answers: Table
    """Empty where none were kept."""
    front: str
    """Of the card, in YAML."""

    @property
    def address(self) -> str:
        """From the report's own page."""
        return f"{FOLDER}/{self.name}.html"


def model_pages(chain: Chain, derived: Derived) -> tuple[ModelPage, ...]:
    """In the chain's order; `chain` with its labels told apart."""
    labels = {row.id: row.label for row in chain.models}
    pairs = zip(chain.models, derived.models, strict=True)
    return tuple(
        ModelPage(
            row=row,
            name=f"{place:02d}-{_slug(row.label)}",
            figures=_figures(model, derived, labels.get(row.source or "")),
            stage=_stage(row),
            answers=answers_table(row.stage, row.label),
            front=_front(row),
        )
        for place, (row, model) in enumerate(pairs, start=1)
    )


def _figures(model: ModelFigures, derived: Derived, source: str | None) -> Table:
    why = model.why
    untimed = why.get("tokens_per_s", "not timed when this model was measured")
    unserved = why.get("vllm_tokens_per_s", "compared after stages only")
    unknown = "the bytes of one of the two are not known"
    made = model.role in ("student", "stage")
    said: dict[str, Cell] = {}
    for skill in derived.skills:
        measured = model.skills.get(skill)
        lacking = why.get("skills", f"{skill} was not measured for this model")
        found = cells.accuracy(measured) if measured else cells.missing(lacking)
        said[f"accuracy, {skill}"] = found
    for skill in (*derived.skills, MEAN):
        if skill in model.gap_closed:
            said[f"gap closed, {skill}"] = cells.gap(model.gap_closed[skill])
    for skill, gained in model.gained.items():
        said[f"points gained, {skill}"] = cells.change(gained)
    if made:
        said["made from"] = label(source, "the chain doesn't list its source")
    said |= {
        "parameters": cells.count(model.parameters, why.get("parameters")),
        "bytes": cells.size(model.weight_bytes, why.get("weight_bytes")),
        "bytes, of teacher's": cells.times(model.bytes_of_teacher, unknown),
        "tokens/s": cells.speed(model.tokens_per_s, untimed),
        "prefill tokens/s": cells.speed(model.prefill_tokens_per_s, untimed),
        "decode tokens/s": cells.speed(model.decode_tokens_per_s, untimed),
        "peak memory": cells.size(model.peak_memory_bytes, untimed),
        "tokens/s, vLLM": cells.speed(model.vllm_tokens_per_s, unserved),
        "prefill tokens/s, vLLM": cells.speed(model.vllm_prefill_tokens_per_s, unserved),
        "decode tokens/s, vLLM": cells.speed(model.vllm_decode_tokens_per_s, unserved),
    }
    if made:
        untold = why.get("seconds", "the run told none")
        said["wall time"] = cells.duration(model.seconds, untold)
    return facts("Figures", said)


def _stage(row: ModelRow) -> Table | None:
    stage = row.stage
    if stage is None:
        return None
    heal, serving = stage.heal, stage.serving
    unserved = stage.serving_note or "not compared with vLLM"
    unmeasured = why_unmeasured(stage)
    healed = "none"
    if heal is not None:
        healed = f"{heal.method}, {text.count(heal.steps)} steps"
    return facts(
        "Stage",
        {
            "kind": label(stage.kind),
            "gate": label("met" if stage.passed else f"not met: {' '.join(stage.failures)}"),
            "perplexity before": cells.estimate(stage.before.perplexity, None, unmeasured),
            "perplexity": cells.estimate(stage.after.perplexity, None, unmeasured),
            "KL from source": kl_from_source(stage),
            "KL from start": kl_from_start(stage),
            "likeliest token is start's": agreement(stage),
            **_from_teacher(stage),
            "completion tokens of those": label(taken_over(stage)),
            **_row_answers(stage),
            "parameters not zero": cells.count(stage.after.shape.nonzero, None),
            "layers": cells.count(stage.after.shape.layers, None),
            "calibration rows": cells.count(stage.calibration_rows, None),
            "heal": label(healed),
            "vLLM": label(serving.vllm_version if serving else None, unserved),
            "mean |Δ log p|": cells.small(
                serving.mean_logprob_difference if serving else None, unserved
            ),
            "equal completions": cells.percent(serving.equal_completions)
            if serving
            else cells.missing(unserved),
        },
    )


def _from_teacher(stage: StageReport) -> dict[str, Cell]:
    """Where a teacher was named."""
    if stage.after.from_teacher is None:
        return {}
    names = (
        *("KL from teacher before", "KL from teacher"),
        *("likeliest token is teacher's, before", "likeliest token is teacher's"),
    )
    return dict(zip(names, from_teacher(stage), strict=True))


def _row_answers(stage: StageReport) -> dict[str, Cell]:
    """Where rows' prompts were answered."""
    if stage.after.row_answers is None:
        return {}
    names = (
        *("answer is the row's, before", "answer is the row's", "ROUGE-L before", "ROUGE-L"),
        *("verifier takes it, before", "verifier takes it"),
    )
    over = {"prompts of those": label(answered_over(stage))}
    return dict(zip(names, row_answers(stage), strict=True)) | over


def _front(row: ModelRow) -> str:
    """What a hub reads of a card."""
    tags = ["retort", TAGS[row.role]]
    if row.stage is not None:
        tags.append(row.stage.kind)
    told: dict[str, Any] = {"library_name": "transformers", "tags": tags}
    return yaml.safe_dump(told, sort_keys=False).rstrip()


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40] or "model"
