"""What of a model's inside is compared, beside or instead of its outputs: a union on `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Spec


class HiddenStates(Spec):
    """Hidden states through a learned projection (arXiv:1909.10351, arXiv:1908.09355)."""

    kind: Literal["hidden"]
    distance: Literal["mse", "cosine"] = "cosine"
    """`cosine` is at most 2 whatever the teacher's scale; `mse` is in the square of that, and
    drowns the output's divergence unless `weight` makes up for it."""
    layers: tuple[tuple[int, int], ...] = ()
    """(student layer, teacher layer) pairs, 0 the embeddings; empty maps the student's layers
    evenly onto the teacher's, the last on the last."""
    weight: float = Field(1.0, gt=0)


class Relations(Spec):
    """KL of the scaled dot-products among queries, among keys and among values of one layer
    (MiniLMv2, arXiv:2012.15828), heads re-split, so that widths may differ."""

    kind: Literal["relation"]
    student_layer: int = Field(-1)
    """Of the student's layers, counted from 0; -1 is the last."""
    teacher_layer: int = Field(-1)
    """Of the teacher's layers, counted from 0; -1 is the last."""
    heads: int = Field(1, ge=1)
    """Relation heads; must divide the widths of queries, keys and values on both sides."""
    weight: float = Field(1.0, gt=0)


FeatureSpec = Annotated[HiddenStates | Relations, Field(discriminator="kind")]
