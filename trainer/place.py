"""Where a training writes: what lies there already is never lost without a word."""

from pathlib import Path

from trainer.errors import BadInput
from trainer.spec import TrainSpec, WithTeacher

CARD = "retort.json"


def check_place(spec: TrainSpec, out: Path) -> None:
    """BadInput where the finished student would take the place of what isn't an earlier one."""
    model = out / "model"
    named = {"student": spec.student}
    if isinstance(spec, WithTeacher):
        named["teacher"] = spec.teacher
    for side, source in named.items():
        if Path(source).resolve() == model.resolve():
            raise BadInput(
                f"the {side} lies where the finished student goes",
                f"{source} would be overwritten. Name another place to train in.",
            )
    for path in (model, out / "checkpoints"):
        if (path.exists() and not path.is_dir()) or (path == model and path.is_symlink()):
            raise BadInput(
                f"{path} is in the way",
                "A training makes a directory of that name. Move it, or name another place to "
                "train in.",
            )
    if model.is_dir() and any(model.iterdir()) and not (model / CARD).exists():
        raise BadInput(
            f"{model} was not made by a training",
            f"It holds no {CARD}, and the finished student would take its place. Move it, or name "
            "another place to train in.",
        )
