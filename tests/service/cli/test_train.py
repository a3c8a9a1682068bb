"""`retort train`: the trainer, a process of its own, by the command line."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prompts.dataset import import_dataset
from service.cli.train import told
from tests.service.cli.conftest import Cli
from tests.trainer.conftest import make_model, make_records, save_model

pytestmark = pytest.mark.slow

INTERRUPTIBLE = """
import signal
from service.cli import main
# A process that runs in the background of a script is born without ears for Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a student, and a recipe that names them as they lie beside it."""
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder)
    save_model(folder / "student", make_model())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "r", "train": training()}))
    return folder


def write_dataset(folder: Path) -> None:
    """`dataset`, 40 chains of thought."""
    rows = [
        record.model_dump(mode="json", include={"id", "prompt", "completion", "reasoning"})
        for record in make_records(40)
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    import_dataset(folder / "rows.jsonl", folder / "dataset", kind="cot")


def training(**optimization: Any) -> dict[str, Any]:
    chosen = {"batch_size": 8, "max_steps": 4, "threads": 1, **optimization}
    named = {"student": "student", "dataset": "dataset", "optimization": chosen}
    return {"method": "sequence_level", **named}


def test_a_dry_run_shows_what_is_learnt_and_leaves_nothing(cli: Cli, place: Path) -> None:
    before = sorted(place.iterdir())
    said = cli("train", str(place / "recipe.yaml"), "--dry-run")
    assert said.code == 0
    for part in ("--- given ---", "--- learnt ---", "4 steps", "weights: ", "s a step by"):
        assert part in said.out
    assert sorted(place.iterdir()) == before


def test_it_trains_tells_and_goes_on_after_an_interrupt(
    cli: Cli, place: Path, tmp_path: Path
) -> None:
    """Ctrl-C writes a checkpoint; the next call goes on from it."""
    spec = place / "long.yaml"
    spec.write_text(yaml.safe_dump(training(max_steps=5000, checkpoint_steps=5000)))
    arguments = ["train", str(spec), "--out", str(tmp_path)]
    words = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
    for begins in ("step ", "train: 5000 steps, resumed from checkpoint-"):
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            assert any(line.startswith(begins) for line in child.stdout)
            child.send_signal(signal.SIGINT)
            child.stdout.read()
            assert "goes on where it was" in child.stderr.read()
        assert child.returncode == 130
    assert list((tmp_path / "checkpoints").glob("checkpoint-*"))
    (place / "short.yaml").write_text(yaml.safe_dump(training()))
    said = cli("train", str(place / "short.yaml"), "--out", str(tmp_path / "short"), "--json")
    assert said.code == 0
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[-1] == {"model": str(tmp_path / "short/model")}
    assert (tmp_path / "short/model/config.json").is_file()
    assert [line["event"] for line in lines[:-1]].count("step") >= 1


def test_what_can_not_be_trained_is_said_with_code_2(cli: Cli, place: Path, tmp_path: Path) -> None:
    def refused(text: str, *words: str) -> str:
        (place / "bad.yaml").write_text(text)
        said = cli("train", str(place / "bad.yaml"), *words)
        assert said.code == 2
        return said.out + said.err

    assert "there is no file" in cli("train", str(place / "none.yaml"), "--dry-run").err
    assert "--dry-run" in refused("{}")
    assert "must hold fields" in refused("[1]", "--dry-run")
    assert "can't be read" in refused("a: [", "--dry-run")
    assert "learning: Extra inputs" in refused(
        yaml.safe_dump({**training(), "learning": 1}), "--dry-run"
    )
    dated = f"{yaml.safe_dump({**training(), 'learning': 1})}name: 2026-11-28\n"
    assert "learning: Extra inputs" in (told := refused(dated, "--dry-run"))
    assert "name:" not in told
    told = refused(yaml.safe_dump(training()), "--dry-run", "--dataset", str(tmp_path / "none"))
    assert "none is not a dataset" in told


def test_an_event_in_a_line() -> None:
    step = {"event": "step", "step": 3, "steps": 9, "loss": None, "tokens_per_s": 1234.4}
    assert told(step) == "step 3 of 9: loss not finite, 1,234 tokens/s"
    more = {"loss": 0.5, "forward_kl": 0.25, "entropy": None, "grad_norm": 1.5, "epoch": 0.1}
    said = "loss 0.5000, forward_kl 0.2500, entropy not finite, gradient norm 1.5000, 1,234 tokens"
    assert told({**step, **more, "learning_rate": 1e-3}) == f"step 3 of 9: {said}/s"
    measured = {"event": "validation", "step": 3, "loss": 0.5, "forward_kl": 0.25, "entropy": 2.0}
    wanted = "step 3: validation loss 0.5000, forward_kl 0.2500, entropy 2.0000"
    assert told(measured) == wanted
    row = {"prompt": "a " * 50 + "b\nc", "reference": "d", "student": "e " * 99, "ended": True}
    sampled = told({"event": "samples", "step": 3, "rows": [{**row, "id": "r"}, row]})
    assert sampled is not None
    assert sampled.startswith("step 3: to '… a a")
    assert sampled.endswith("b c' it answers '" + "e " * 60 + "…', the dataset 'd'")
    assert told({"event": "warning", "detail": "beware"}) == "warning: beware"
    assert told({"event": "samples", "rows": []}) is None
