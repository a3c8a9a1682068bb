"""The figures of each model of a chain, beside those of the model it was made from."""

from pydantic import Field

from prompts.record import Frozen
from trainer.compress.report import RowAnswers
from trainer.measurement import Accuracy, Measurement
from trainer.report.chain import Chain, ModelRow
from trainer.report.gap import Difference, GapClosed, difference, gap_closed

MEAN = "mean"
"""The name of the mean over skills, where figures are kept by skill."""


class ModelFigures(Frozen):
    """One model. None is a figure that the run didn't give; `why` says why, by field."""

    id: str
    label: str
    role: str
    passed: bool | None = None
    """Whether it met its gate; None for models that have none."""
    skills: dict[str, Accuracy] = Field(default_factory=dict)
    mean_accuracy: float | None = None
    """Over skills, each counting once, 0..1."""
    gap_closed: dict[str, GapClosed] = Field(default_factory=dict)
    """By skill, and over their mean; students and stages only."""
    gained: dict[str, Difference] = Field(default_factory=dict)
    """By skill: accuracy minus that of the model it was made from."""
    parameters: int | None = None
    nonzero: int | None = None
    """Parameters that are not zero; stages only."""
    weight_bytes: int | None = None
    bytes_of_teacher: float | None = None
    """Bytes over the teacher's bytes."""
    bytes_of_source: float | None = None
    """Bytes over those of the model it was made from."""
    tokens_per_s: float | None = None
    """Generated, in transformers, on the chain's machine."""
    prefill_tokens_per_s: float | None = None
    """Of prompts, in transformers."""
    decode_tokens_per_s: float | None = None
    """Behind each answer's first token, in transformers."""
    peak_memory_bytes: int | None = None
    """While it answered, in transformers."""
    vllm_tokens_per_s: float | None = None
    vllm_prefill_tokens_per_s: float | None = None
    vllm_decode_tokens_per_s: float | None = None
    seconds: float | None = None
    """Wall time of the step that made it."""
    teacher_tokens: int | None = None
    why: dict[str, str] = Field(default_factory=dict)


def model_figures(chain: Chain) -> tuple[ModelFigures, ...]:
    """Every model's figures, in the chain's order."""
    named = zip(chain.models, display_names(chain), strict=True)
    return tuple(_figures(chain, row, name) for row, name in named)


def named_apart(chain: Chain) -> Chain:
    """The chain, labels that several models share numbered."""
    names = display_names(chain)
    rows = zip(chain.models, names, strict=True)
    models = tuple(row.model_copy(update={"label": name}) for row, name in rows)
    return chain.model_copy(update={"models": models})


def display_names(chain: Chain) -> tuple[str, ...]:
    """A name for each model, in the chain's order: its label, numbered where others share it."""
    labels = [row.label for row in chain.models]
    return tuple(
        f"{label} ({labels[:place].count(label) + 1})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    )


def skill_names(chain: Chain) -> tuple[str, ...]:
    """All skills measured anywhere in the chain: distilled ones first, then by name."""
    measured = {
        skill for row in chain.models if (found := measurement(row)) for skill in found.skills
    }
    first = [skill for skill in chain.distilled if skill in measured]
    return (*first, *sorted(measured - set(first)))


def measurement(row: ModelRow) -> Measurement | None:
    """What was measured of a model, wherever the run wrote it."""
    if row.measurement is None and row.stage is not None:
        return row.stage.after.measurement
    return row.measurement


def find(chain: Chain, role: str) -> ModelRow | None:
    """The first model of a role."""
    return next((row for row in chain.models if row.role == role), None)


def _figures(chain: Chain, row: ModelRow, name: str) -> ModelFigures:
    measured = measurement(row)
    skills = measured.skills if measured else {}
    stage = row.stage
    serving = stage.serving if stage else None
    weight_bytes, timed = _weight_bytes(row), _timed(row)
    return ModelFigures(
        id=row.id,
        label=name,
        role=row.role,
        passed=stage.passed if stage else None,
        skills=skills,
        mean_accuracy=measured.mean_accuracy if measured and skills else None,
        gap_closed=_gaps(chain, row),
        gained=_gained(chain, row),
        parameters=_parameters(row),
        nonzero=stage.after.shape.nonzero if stage else None,
        weight_bytes=weight_bytes,
        bytes_of_teacher=_over(weight_bytes, find(chain, "teacher")),
        bytes_of_source=_over(weight_bytes, _source(chain, row)),
        tokens_per_s=timed.tokens_per_s if timed else None,
        prefill_tokens_per_s=timed.prefill_tokens_per_s if timed else None,
        decode_tokens_per_s=timed.decode_tokens_per_s if timed else None,
        peak_memory_bytes=timed.peak_memory_bytes if timed else None,
        vllm_tokens_per_s=serving.vllm_tokens_per_s if serving else None,
        vllm_prefill_tokens_per_s=serving.vllm_prefill_tokens_per_s if serving else None,
        vllm_decode_tokens_per_s=serving.vllm_decode_tokens_per_s if serving else None,
        seconds=stage.seconds if row.seconds is None and stage else row.seconds,
        teacher_tokens=row.teacher_tokens,
        why=_reasons(row),
    )


def _timed(row: ModelRow) -> Measurement | RowAnswers | None:
    if row.measurement is None and row.stage is not None:
        return row.stage.after.timed
    return row.measurement


def _parameters(row: ModelRow) -> int | None:
    if row.stage is not None:
        return row.stage.after.shape.parameters
    return row.measurement.parameters if row.measurement else None


def _weight_bytes(row: ModelRow) -> int | None:
    if row.stage is not None:
        return row.stage.after.shape.weight_bytes
    return row.measurement.weight_bytes if row.measurement else None


def _over(weight_bytes: int | None, other: ModelRow | None) -> float | None:
    whole = _weight_bytes(other) if other else None
    return weight_bytes / whole if weight_bytes is not None and whole else None


def _source(chain: Chain, row: ModelRow) -> ModelRow | None:
    return next((other for other in chain.models if other.id == row.source), None)


def _skills_of(row: ModelRow | None) -> dict[str, Accuracy]:
    measured = measurement(row) if row else None
    return measured.skills if measured else {}


def _gained(chain: Chain, row: ModelRow) -> dict[str, Difference]:
    before = _skills_of(_source(chain, row))
    return {
        skill: difference(after, before[skill])
        for skill, after in _skills_of(row).items()
        if skill in before
    }


def _gaps(chain: Chain, row: ModelRow) -> dict[str, GapClosed]:
    if row.role in ("teacher", "base"):
        return {}
    own, base = _skills_of(row), _skills_of(find(chain, "base"))
    teacher = _skills_of(find(chain, "teacher"))
    common = [skill for skill in own if skill in base and skill in teacher]
    gaps = {skill: gap_closed([own[skill]], [base[skill]], [teacher[skill]]) for skill in common}
    if len(common) > 1:
        gaps[MEAN] = gap_closed(*([row[skill] for skill in common] for row in (own, base, teacher)))
    return gaps


def _reasons(row: ModelRow) -> dict[str, str]:
    reasons = dict(row.why)
    if measurement(row) is None:
        unmeasured = row.why.get("measurement", "not measured: the recipe has no evaluation rows")
        for field in ("skills", "parameters", "weight_bytes", "tokens_per_s"):
            reasons.setdefault(field, unmeasured)
    if row.stage is not None and row.stage.serving is None:
        reasons.setdefault("vllm_tokens_per_s", row.stage.serving_note or "not compared with vLLM")
    if row.role == "stage":
        reasons.setdefault("teacher_tokens", "a stage asks no teacher server")
    if row.role in ("teacher", "base"):
        reasons.setdefault("seconds", "given, not made by this chain")
        reasons.setdefault("teacher_tokens", "given, not made by this chain")
    return reasons
