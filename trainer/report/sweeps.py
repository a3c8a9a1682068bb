"""A stage at several ratios: which of its models are worth their bytes, and where to stop."""

import math
from collections.abc import Sequence

from prompts.record import Frozen
from trainer.compress.report import StageReport
from trainer.report import text
from trainer.report.caveats import MASKS
from trainer.report.chain import Chain
from trainer.report.figures import ModelFigures

ACCURACY, KL = "mean accuracy", "KL from start"


class SweptModel(Frozen):
    """One ratio."""

    id: str
    label: str
    ratio: float
    weight_bytes: int
    quality: float | None
    """Mean accuracy; minus the KL where nothing was asked: more is better. None where the outputs
    are not finite."""
    on_front: bool = False
    """No other of the sweep is as small and as good, and better in one of the two."""


class Sweep(Frozen):
    """One swept stage. `models` by ratio."""

    kind: str
    field: str
    measure: str
    """`ACCURACY`, or `KL`."""
    models: tuple[SweptModel, ...]
    knee: str | None
    """Label of the model after which bytes cost most, None where there is none."""
    sentence: str


def find_sweeps(models: Sequence[ModelFigures], chain: Chain) -> tuple[Sweep, ...]:
    """Every sweep of the chain, in order."""
    figures = {model.id: model for model in models}
    rows = [row for row in chain.models if row.stage is not None and row.stage.sweep is not None]
    stages = {row.stage.sweep.stage for row in rows if row.stage and row.stage.sweep}
    found = []
    for number in sorted(stages):
        members = [
            (figures[row.id], row.stage)
            for row in rows
            if row.stage and row.stage.sweep and row.stage.sweep.stage == number
        ]
        asked = all(figure.mean_accuracy is not None for figure, _ in members)
        swept = [
            SweptModel(
                id=figure.id,
                label=figure.label,
                ratio=stage.sweep.ratio if stage.sweep else 0.0,
                weight_bytes=stage.after.shape.weight_bytes,
                quality=_quality(figure, stage, asked),
            )
            for figure, stage in members
        ]
        first = members[0][1]
        field = first.sweep.field if first.sweep else ""
        found.append(make_sweep(first.kind, field, ACCURACY if asked else KL, swept))
    return tuple(found)


def _quality(figure: ModelFigures, stage: StageReport, asked: bool) -> float | None:
    """None where a KL was taken and is no number: JSON tells such ones as null."""
    kl = stage.after.kl_from_start
    finite = kl is not None and math.isfinite(kl)
    if asked:
        return figure.mean_accuracy if finite or not stage.kl_tokens else None
    return -kl if kl is not None and finite else None


def make_sweep(kind: str, field: str, measure: str, models: Sequence[SweptModel]) -> Sweep:
    """With its front and knee."""
    marked = tuple(one.model_copy(update={"on_front": on_front(one, models)}) for one in models)
    knee = find_knee([one for one in marked if one.on_front])
    return Sweep(
        kind=kind,
        field=field,
        measure=measure,
        models=marked,
        knee=knee.label if knee else None,
        sentence=_sentence(kind, field, measure, marked, knee),
    )


def on_front(one: SweptModel, models: Sequence[SweptModel]) -> bool:
    """Whether nothing dominates it (Pareto); never, where its outputs are not finite."""
    quality = one.quality
    return quality is not None and not any(
        other.weight_bytes <= one.weight_bytes
        and other.quality >= quality
        and (other.weight_bytes < one.weight_bytes or other.quality > quality)
        for other in models
        if other.quality is not None
    )


def find_knee(front: Sequence[SweptModel]) -> SweptModel | None:
    """The point of a front that lies furthest above the line between its ends, both axes from 0
    to 1 (Satopää and others, 2011); None where no point lies above it."""
    known = [(one.weight_bytes, one.quality, one) for one in front if one.quality is not None]
    known.sort(key=lambda each: each[0])
    if len(known) < 3:
        return None
    (smallest, lowest, _), (largest, highest, _) = known[0], known[-1]
    wide, tall = largest - smallest, highest - lowest
    if not wide or not tall:  # equals of each other
        return None
    above = [
        ((quality - lowest) / tall - (size - smallest) / wide, one) for size, quality, one in known
    ]
    most, best = max(above, key=lambda each: each[0])
    return best if most > 1e-9 else None


def _sentence(
    kind: str,
    field: str,
    measure: str,
    models: Sequence[SweptModel],
    knee: SweptModel | None,
) -> str:
    """What a reader takes from it."""
    what = f"Sweep of {kind} over {field}, {measure} against bytes"
    front = ", ".join(one.label for one in models if one.on_front)
    lost = ", ".join(one.label for one in models if one.quality is None)
    if not front:
        return f"{what}: nothing to choose from, no ratio's outputs are finite."
    if len({one.weight_bytes for one in models}) == 1:
        said_of = _of_equal_bytes(kind, measure, models)
    elif knee is None:
        said_of = f"on the front are {front}; it has no knee, no ratio stands out."
    else:
        said_of = (
            f"on the front are {front}. The knee is {knee.label}, {said(knee, measure)} in "
            f"{text.size(knee.weight_bytes)}: smaller ones lose faster than they save."
        )
    aside = f" {lost} is no candidate: its outputs are not finite."
    if "," in lost:
        aside = f" {lost} are no candidates: their outputs are not finite."
    return f"{what}: {said_of}{aside if lost else ''}"


def _of_equal_bytes(kind: str, measure: str, models: Sequence[SweptModel]) -> str:
    why = ""
    if kind in MASKS:
        why = ", since zeros are stored as any number"
    if kind == "tensor":
        why = ", since factors are stored multiplied out"
    front = [one for one in models if one.on_front]
    best = ", ".join(one.label for one in front)
    verdict = f"{best} is best by itself, not for its bytes"
    if len(front) > 1:
        verdict = f"{best} are level at {said(front[0], measure)}, none is best"
    return f"all ratios take {text.size(models[0].weight_bytes)}{why}; {verdict}."


def said(one: SweptModel, measure: str) -> str:
    """Its quality in words."""
    if one.quality is None:
        return "not finite"
    if measure == ACCURACY:
        return text.percent(one.quality)
    return f"KL {text.small(abs(one.quality))}"
