"""A training killed with SIGKILL at random steps, beside one that nobody disturbs.

    python -m tests.trainer.kills --kills 20 --steps 60 --method gkd

Each attempt is a process of its own (forked, so that libraries load once), killed up to 60 ms after
a step that chance names: within a step, while a checkpoint is written, hashed or renamed. The next
one goes on from what it finds. Prints one line of JSON; exits 1 where anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import nn

from tests.trainer.conftest import make_model, make_records, save_model
from tests.trainer.methods.made import ALONE, spec_of
from trainer.events import silent
from trainer.training import train_on

DELAY_S = 0.06
FIELDS: dict[str, dict[str, Any]] = {
    "gkd": {"student_share": 0.5, "max_new_tokens": 6},
    "minillm": {"max_new_tokens": 6},
}


def compare(method: str, steps: int, kills: int, seed: int) -> dict[str, Any]:
    """Both runs, and whether they ended alike."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        _join(_fork(lambda told: _train(method, steps, here, here / "whole", told))[0])
        at = sorted(chance.randint(1, steps - 1) for _ in range(kills))
        killed, resumed = [], []
        for step in at:
            begun = _newest(here / "cut")
            if _kill_at(method, steps, here, step, chance.uniform(0, DELAY_S)):
                killed.append(step)
                resumed.append(begun)
        _join(_fork(lambda told: _train(method, steps, here, here / "cut", told))[0])
        both = [_left(here / name) for name in ("whole", "cut")]
    return {
        "method": method,
        "steps": steps,
        "killed_at": killed,
        "from_checkpoint": resumed,
        "identical": both[0] == both[1],
        "weights": [one["weights"][:12] for one in both],
    }


def _train(method: str, steps: int, here: Path, out: Path, told: int) -> None:
    """Dropout, accumulation and measurements: whatever a checkpoint could forget."""
    if not (here / "student").exists():
        save_model(here / "student", make_model(attention_dropout=0.3))
        save_model(here / "teacher", make_model(1, hidden_size=48, intermediate_size=48))
    optimization = {
        "batch_size": 2,
        "accumulation": 2,
        "max_steps": steps,
        "checkpoint_steps": 3,
        "eval_steps": 4,
        "keep": "best",
    }
    fields = {} if method in ALONE else FIELDS.get(method, {})
    spec = spec_of(here, method, optimization=optimization, **fields)

    def step_made(model: nn.Module) -> None:
        os.write(told, b".")

    train_on(spec, make_records(16), make_records(4), out, silent, step_made)


def _kill_at(method: str, steps: int, here: Path, step: int, delay_s: float) -> bool:
    """Whether the run still went on when it was killed."""
    begun = _newest(here / "cut")
    child, told = _fork(lambda one: _train(method, steps, here, here / "cut", one))
    for _ in range(max(1, step - begun)):
        select.select([told], [], [])
        os.read(told, 1)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.close(told)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and status:
        raise AssertionError(f"the run failed by itself before it was killed at {step}")
    return os.WIFSIGNALED(status)


def _fork(act: Any) -> tuple[int, int]:
    """A child that acts and ends; its number, and where it tells of its steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        act(writing)
        status = 0
    finally:
        os._exit(status)


def _join(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise AssertionError(f"a run that nobody killed ended with {status}")


def _newest(out: Path) -> int:
    """Of the last checkpoint that was renamed into place; 0 without one."""
    names = [path.name[11:] for path in (out / "checkpoints").glob("checkpoint-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _left(out: Path) -> dict[str, Any]:
    card = json.loads((out / "model/retort.json").read_text())
    return {
        "weights": hashlib.sha256((out / "model/model.safetensors").read_bytes()).hexdigest(),
        "losses": card["losses"],
        "validation": card["validation"],
        "best": card["best_step"],
        "samples": json.loads((out / "model/samples.json").read_text()),
    }


def main() -> int:
    """One comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.trainer.kills", description=__doc__)
    parser.add_argument("--method", default="sequence_level")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = compare(given.method, given.steps, given.kills, given.seed)
    print(json.dumps(found))
    return 0 if found["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
