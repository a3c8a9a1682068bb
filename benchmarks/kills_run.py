"""A training in a process of its own, which tells of every step."""

import multiprocessing
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trainer.recipe import read_spec
from trainer.spec import TrainSpec
from trainer.training import train

RESUMED = re.compile(r"resumed from checkpoint-(\d+)")
_CONTEXT = multiprocessing.get_context("forkserver")
# Each child is a copy of one process that has read the libraries and computed nothing.
_CONTEXT.set_forkserver_preload(["__main__", __name__])


@dataclass(frozen=True)
class Run:
    """A process that trains."""

    child: ForkServerProcess
    told: Connection
    """Its events."""


def begin(spec: Path, out: Path) -> Run:
    """Of a TrainSpec's file; what libraries say goes to a log beside `out`."""
    hearing, telling = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=_train, args=(spec, out, telling), daemon=True)
    child.start()
    telling.close()  # the child's copy is the only one: with its end, hearing ends
    return Run(child, hearing)


def _train(spec: Path, out: Path, telling: Connection) -> None:
    """As `python -m trainer train` does, which tells of every step besides."""
    with out.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)

    def emit(event: str, fields: dict[str, Any]) -> None:
        telling.send({"event": event, **fields})

    read = read_spec(spec, TypeAdapter[TrainSpec](TrainSpec))
    train(read, out, emit, lambda model: emit("made", {}))
    emit("done", {})


def events(run: Run, step: int = 0) -> Iterator[tuple[str, int]]:
    """What a run tells, until it ends: where it begins, each step made, each checkpoint that is
    whole, the finished student; with the number of steps made so far."""
    while True:
        try:
            event = run.told.recv()
        except (EOFError, OSError):  # killed, perhaps in the middle of a message
            return
        what = event.get("name", event["event"])  # a phase's name
        if what == "made":
            step += 1
            yield "step", step
        elif what in ("checkpoint", "done"):
            yield what, step
        elif what == "train":
            found = RESUMED.search(event["detail"])
            step = int(found[1]) if found else 0
            yield "begun", step


def ended(run: Run, status: int, out: Path) -> None:
    """Waits for it. Raises RuntimeError where it ended in another way."""
    run.child.join()
    if run.child.exitcode != status:
        raise RuntimeError(f"it ended with {run.child.exitcode}; see {out.with_suffix('.log')}")
