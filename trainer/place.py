"""Where a training writes: what lies there already is never lost without a word."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import BadInput, Lost
from trainer.events import Emit
from trainer.spec import TrainSpec, WithTeacher

CARD = "retort.json"
PATIENCE_S = 45.0
"""For a training that is being ended, which writes a checkpoint first."""


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


@contextlib.contextmanager
def claimed(out: Path, emit: Emit) -> Iterator[None]:
    """Within, no other training on this machine writes into `out`: two would mix their checkpoints.
    The lock is the directory's own and goes with the process. One that is being ended is waited
    for; Lost where another stays: it is no fault of the input."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        if os.environ.get("RANK", "0") == "0":
            _lock(descriptor, out, emit)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, out: Path, emit: Emit) -> None:
    until = time.monotonic() + PATIENCE_S
    if _locked(descriptor):
        return
    emit("phase", {"name": "wait", "detail": f"another process trains in {out}"})
    while not _locked(descriptor):
        if time.monotonic() >= until:
            raise Lost(
                f"another process trains in {out}",
                "Wait for its end, or stop it; or name another place to train in.",
            )
        time.sleep(0.5)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # not every file system of a network has locks
    return True
