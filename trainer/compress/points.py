"""What a compression runs: its stages laid out, each point of a sweep a stage of its own."""

from dataclasses import dataclass

from trainer.spec import CompressSpec, StageSpec
from trainer.spec.compress import Sweepable

RATIO_FIELDS = {
    "magnitude": "sparsity",
    "wanda": "sparsity",
    "sparsegpt": "sparsity",
    "svd": "parameter_ratio",
    "tensor": "parameter_ratio",
}
"""By kind, the field that a sweep's ratios are values of."""


@dataclass(frozen=True)
class Point:
    """One model to be made."""

    stage: StageSpec
    asked: int
    """Which of the spec's stages it comes from."""
    before: int | None
    """The point whose model it works on; None: the one that the chain starts from."""
    ratio: float | None = None
    """Of a sweep."""

    @property
    def label(self) -> str:
        """For a person."""
        return self.stage.kind if self.ratio is None else f"{self.stage.kind} {self.ratio:g}"


def lay_out(spec: CompressSpec) -> tuple[Point, ...]:
    """Every model that the stages make, in the order they are made."""
    points: list[Point] = []
    for asked, stage in enumerate(spec.stages):
        follows = bool(points) and stage.on == "previous"
        before = len(points) - 1 if follows else None
        points += [Point(one, asked, before, ratio) for one, ratio in _swept(stage)]
    return tuple(points)


def _swept(stage: StageSpec) -> list[tuple[StageSpec, float | None]]:
    """The stage at each of its sweep's ratios; itself, where it has none."""
    if not isinstance(stage, Sweepable) or stage.sweep is None:
        return [(stage, None)]
    field = RATIO_FIELDS[stage.kind]
    return [
        (stage.model_copy(update={field: ratio, "sweep": None}), ratio)
        for ratio in stage.sweep.ratios
    ]
