"""Started once per rank by test_ranks.py: trains into folders, each on so many rows."""

import sys
from pathlib import Path

from pydantic import TypeAdapter

from tests.trainer.methods.every import records_of
from trainer.events import silent
from trainer.spec import TrainSpec
from trainer.training import train_on

if __name__ == "__main__":
    for place, rows in zip(map(Path, sys.argv[1::2]), map(int, sys.argv[2::2]), strict=True):
        text = (place / "spec.json").read_text()
        spec = TypeAdapter[TrainSpec](TrainSpec).validate_json(text)
        given = records_of(spec.method, rows)
        train_on(spec, given, given[: 4 * (rows > 4)], place / "out", silent)
