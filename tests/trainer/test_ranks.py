"""Two processes (gloo) train what one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import make_records
from tests.trainer.methods.made import spec_of
from tests.trainer.test_training import weights
from trainer.events import silent
from trainer.spec import TrainSpec
from trainer.training import train_on


@pytest.mark.slow
def test_two_ranks_train_as_one_and_draw_for_themselves(tmp_path: Path) -> None:
    """An on-policy run only has to arrive, with finite weights, for each rank draws its own
    answers; on one row, so that the other rank has none."""
    two = {"epochs": 1, "batch_size": 4}
    rows = spec_of(tmp_path, "kd", optimization={**two, "batch_size": 8})
    own = {"max_new_tokens": 6, "student_share": 1.0}
    for name, spec in (
        ("kd", spec_of(tmp_path, "kd", optimization=two)),
        ("gkd", spec_of(tmp_path, "gkd", optimization=two, **own)),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(spec.model_dump_json())
    launch(tmp_path / "kd", "17", tmp_path / "gkd", "1")
    one, both = alone(rows, tmp_path / "one"), weights(tmp_path / "kd/out/model")
    assert max(float((one[name] - both[name]).abs().max()) for name in one) < 1e-5
    drawn = weights(tmp_path / "gkd/out/model")
    assert all(torch.isfinite(tensor).all() for tensor in drawn.values())


def alone(spec: TrainSpec, out: Path) -> dict[str, torch.Tensor]:
    return weights(train_on(spec, make_records(17), make_records(4), out, silent))


def launch(*places: Path | str) -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = ["-m", "tests.trainer.rank_run", *map(str, places)]
    ended = subprocess.run(
        [sys.executable, *words, *script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
