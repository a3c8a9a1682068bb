"""A stage at several ratios: which of its models are worth their bytes, and where to stop."""

import math
from collections.abc import Sequence

from prompts.record import Frozen
from trainer.report import text
from trainer.report.chain import Chain
from trainer.report.figures import ModelFigures

ACCURACY, KL = "mean accuracy", "KL from start"


class SweptModel(Frozen):
    """One ratio."""

    id: str
    label: str
    ratio: float
    weight_bytes: int
    quality: float
    """Mean accuracy; minus the KL where nothing was asked: more is better."""
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
                quality=(figure.mean_accuracy or 0.0)
                if asked
                else -(stage.after.kl_from_start or 0.0),
            )
            for figure, stage in members
        ]
        first = members[0][1]
        field = first.sweep.field if first.sweep else ""
        found.append(make_sweep(first.kind, field, ACCURACY if asked else KL, swept))
    return tuple(found)


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
    """Whether nothing dominates it (Pareto)."""
    return not any(
        other.weight_bytes <= one.weight_bytes
        and other.quality >= one.quality
        and (other.weight_bytes < one.weight_bytes or other.quality > one.quality)
        for other in models
    )


def find_knee(front: Sequence[SweptModel]) -> SweptModel | None:
    """The point of a front that lies furthest above the line between its ends, both axes from 0
    to 1 (Satopää and others, 2011); None where no point lies above it."""
    ordered = sorted(front, key=lambda one: one.weight_bytes)
    if len(ordered) < 3:
        return None
    low, high = ordered[0], ordered[-1]
    wide, tall = high.weight_bytes - low.weight_bytes, high.quality - low.quality
    if not wide or not tall:  # equals of each other
        return None

    def above(one: SweptModel) -> float:
        along = (one.weight_bytes - low.weight_bytes) / wide
        return (one.quality - low.quality) / tall - along

    best = max(ordered, key=above)
    return best if above(best) > 1e-9 else None


def _sentence(
    kind: str,
    field: str,
    measure: str,
    models: Sequence[SweptModel],
    knee: SweptModel | None,
) -> str:
    """What a reader takes from it."""
    what = f"Sweep of {kind} over {field}, {measure} against bytes"
    front = [one for one in models if one.on_front]
    if len({one.weight_bytes for one in models}) == 1:
        return (
            f"{what}: all ratios take {text.size(models[0].weight_bytes)}, since zeros are stored "
            f"as any number; {front[0].label} is best by itself, not for its bytes."
        )
    listed = ", ".join(one.label for one in front)
    if knee is None:
        return f"{what}: on the front are {listed}; it has no knee, no ratio stands out."
    return (
        f"{what}: on the front are {listed}. The knee is {knee.label}, "
        f"{said(knee, measure)} in {text.size(knee.weight_bytes)}: smaller ones lose faster than "
        "they save."
    )


def said(one: SweptModel, measure: str) -> str:
    """Its quality in words."""
    if measure == ACCURACY:
        return text.percent(one.quality)
    return f"KL {text.small(math.fabs(one.quality))}"
