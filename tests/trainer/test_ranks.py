"""Two processes (gloo), started by `accelerate launch`, train what one does: DDP and FSDP2."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from tests.trainer.conftest import make_records
from tests.trainer.methods.every import FIELDS, records_of, training_by
from tests.trainer.methods.made import spec_of
from tests.trainer.runs import weights
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import TrainSpec
from trainer.training import train_on

CONFIGS = Path(__file__).parents[2] / "examples/accelerate"
PATIENCE_S = 400
TWO = {"epochs": 1, "batch_size": 4, "eval_steps": 2, "checkpoint_steps": 2}


@pytest.mark.slow
def test_two_ranks_train_as_one_also_where_one_has_no_rows(tmp_path: Path) -> None:
    """With measurements and the best weights; an on-policy run on one row only has to arrive."""
    prepare(tmp_path)
    launch("cpu-2.yaml", "tests.trainer.rank_run", tmp_path / "kd", "17", tmp_path / "gkd", "1")
    assert furthest_from_one_process(tmp_path) < 1e-5
    assert finite(tmp_path / "gkd")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("config", "module"),
    [("cpu-2.yaml", "tests.trainer.rank_run"), ("gpu-8-fsdp2.yaml", "tests.trainer.fsdp_run")],
)
def test_every_method_learns_the_same_on_two_ranks(
    config: str, module: str, tmp_path: Path
) -> None:
    """Four rows on each of two ranks, or eight on one, in fp64, weights whole or in parts:
    on-policy methods draw the same answers, for what a row draws is its own. The last step has five
    rows: three and two.
    """
    few = {"max_steps": 3, "sample_rows": 0, "eval_steps": 100, "checkpoint_steps": 100}
    models = in_fp64(tmp_path / "models")
    with contextlib.ExitStack() as stack:
        places: list[Path | str] = []
        for method in FIELDS:
            halves = stack.enter_context(training_by(models, method, **few, batch_size=4))
            (tmp_path / method).mkdir()
            (tmp_path / method / "spec.json").write_text(halves.model_dump_json())
            places += [tmp_path / method, "13"]
        launch(config, module, *places)
        apart = {}
        for method in FIELDS:
            whole = stack.enter_context(training_by(models, method, **few, batch_size=8))
            given = records_of(method, 13)
            one = weights(train_on(whole, given, [], tmp_path / "one" / method, silent))
            both = weights(tmp_path / method / "out/model")
            apart[method] = max(float((one[name] - both[name]).abs().max()) for name in one)
    # Steps move a weight by up to 1e-2 each; other answers, or another count, move it otherwise.
    assert max(apart.values()) < 1e-11, apart


@pytest.mark.slow
def test_parts_of_a_student_train_as_a_whole_one(tmp_path: Path) -> None:
    """Under FSDP2 whatever bypassed the wrapper's forward would meet a part of the weights. Answers
    of different lengths, and a rank without rows, would leave the ranks waiting for each other."""
    prepare(tmp_path)
    rows = [tmp_path / "kd", "17", tmp_path / "gkd", "1", tmp_path / "minillm", "5"]
    launch("gpu-8-fsdp2.yaml", "tests.trainer.fsdp_run", *rows)
    assert furthest_from_one_process(tmp_path) < 1e-5
    assert finite(tmp_path / "gkd")
    assert finite(tmp_path / "minillm")
    sharded = tmp_path / "kd/out/checkpoints/checkpoint-3/pytorch_model_fsdp.bin"
    assert sharded.exists()  # else it was DDP that ran


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes"),
    [
        ("gpu-1", "NO", 1, 1),
        ("gpu-8-ddp", "MULTI_GPU", 1, 8),
        ("gpu-8-fsdp2", "FSDP", 1, 8),
        ("gpu-2x8-ddp", "MULTI_GPU", 2, 16),
        ("gpu-2x8-fsdp2", "FSDP", 2, 16),
        ("cpu-2", "MULTI_GPU", 1, 2),
    ],
)
def test_accelerate_reads_every_configuration(
    name: str, kind: str, machines: int, processes: int
) -> None:
    read = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (read.distributed_type, read.num_machines) == (kind, machines)
    assert read.num_processes == processes
    assert read.mixed_precision == "no"
    assert read.use_cpu == (name == "cpu-2")
    if kind == "FSDP":
        assert read.fsdp_config["fsdp_version"] == 2
        assert read.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
        assert read.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False


def test_every_configuration_is_covered() -> None:
    assert len(list(CONFIGS.glob("*.yaml"))) == 6


def in_fp64(place: Path) -> Path:
    """The student and the teacher of every spec made there."""
    spec_of(place, "kd")
    for name in ("student", "teacher"):
        load_model(place / name).double().save_pretrained(place / name)
    return place


def prepare(place: Path) -> None:
    """A folder with a spec for each method."""
    own = {"max_new_tokens": 6}
    for name, spec in (
        ("kd", spec_of(place, "kd", optimization={**TWO, "keep": "best"})),
        ("gkd", spec_of(place, "gkd", optimization=TWO, student_share=1.0, **own)),
        ("minillm", spec_of(place, "minillm", optimization=TWO, **own)),
    ):
        (place / name).mkdir()
        (place / name / "spec.json").write_text(spec.model_dump_json())


def furthest_from_one_process(place: Path) -> float:
    """Of the `kd` run's weights, which learnt from the rows of 8 in two halves."""
    whole = spec_of(place, "kd", optimization={**TWO, "batch_size": 8, "keep": "best"})
    one, both = alone(whole, place / "one"), weights(place / "kd/out/model")
    assert one.keys() == both.keys()
    return max(float((one[name] - both[name]).abs().max()) for name in one)


def alone(spec: TrainSpec, out: Path) -> dict[str, torch.Tensor]:
    return weights(train_on(spec, make_records(17), make_records(4), out, silent))


def finite(run: Path) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in weights(run / "out/model").values())


def launch(config: str, module: str, *places: Path | str) -> None:
    words = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    two = ["--num_processes", "2", "--module", module, *map(str, places)]
    with subprocess.Popen(
        [sys.executable, *words, *two], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            told = started.communicate(timeout=PATIENCE_S)[1]
        finally:  # ranks that wait for each other for ever would outlive the launcher
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)
    assert started.returncode == 0, told[-3000:]
