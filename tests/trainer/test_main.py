"""The trainer as a child process: events, exit codes, recipes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prompts.dataset import import_dataset
from tests.trainer.conftest import make_records
from trainer.compress.gate import GateFailed
from trainer.errors import BadInput
from trainer.events import emitter, silent
from trainer.recipe import run_recipe


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    source = tmp_path / "rows.jsonl"
    rows = [
        {
            "id": record.id,
            "prompt": [message.model_dump() for message in record.prompt],
            "completion": [message.model_dump() for message in record.completion],
            "reasoning": record.reasoning,
            "split": "validation" if number % 10 == 0 else "train",
        }
        for number, record in enumerate(make_records(40))
    ]
    source.write_text("\n".join(json.dumps(row) for row in rows))
    import_dataset(source, tmp_path / "dataset", kind="cot")
    return tmp_path / "dataset"


def train_spec(student: Path, dataset: Path, **optimization: Any) -> dict[str, Any]:
    chosen = {"batch_size": 8, "max_steps": 6, "threads": 1, "eval_steps": 3, **optimization}
    return {
        "method": "rationale_then_answer",
        "student": str(student),
        "dataset": str(dataset),
        "optimization": chosen,
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "trainer", *words]


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_events_are_json_also_where_figures_are_not_finite(tmp_path: Path) -> None:
    with (tmp_path / "events").open("w") as channel:
        emitter(channel)("step", {"loss": float("nan"), "more": {"rate": [float("inf"), 1.0]}})
    assert events((tmp_path / "events").read_text()) == [
        {"event": "step", "loss": None, "more": {"rate": [None, 1.0]}}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"method": "forward_kl", "student": "s"}', "forward_kl.teacher: Field required"),
        ('{"method": "guess", "student": "s"}', "guess"),
        ('{"method": "sequence_level", "student": "s", "lr": 1}', "lr: Extra inputs"),
        ("{", "neither JSON nor YAML"),
    ],
)
def test_a_bad_spec_is_an_error_event_and_exit_code_2(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "spec").write_text(text)
    words = command("train", "--spec", str(tmp_path / "spec"), "--out", str(tmp_path / "out"))
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    (told,) = events(ended.stdout)
    assert ended.returncode == 2
    assert told["event"] == "error"
    assert problem in f"{told['title']} {told['detail']}"
    assert not (tmp_path / "out").exists()


def test_what_went_away_is_an_error_event_and_a_crash_that_may_be_tried_again() -> None:
    """A process of its own, for the command takes standard output for itself."""
    code = (
        "import sys; from trainer import __main__ as one; from trainer.errors import Lost\n"
        "def lost(*_): raise Lost('the server is gone', 'Run it again.')\n"
        "one._COMMANDS['train'] = lost; sys.exit(one.main(['train', '--spec', 'none']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    said = {"title": "the server is gone", "detail": "Run it again.", "again": True}
    assert events(ended.stdout) == [{"event": "error", **said}]
    assert ended.stderr.splitlines()[-1] == "the server is gone: Run it again."


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_ends_with_143_and_the_next_start_goes_on(
    student_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(train_spec(student_dir, dataset, max_steps=3000)))
    words = command("train", "--spec", str(spec), "--out", str(tmp_path / "out"))
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["event"] == "step":
                child.send_signal(signal.SIGTERM)
                break
        child.stdout.read()
    assert child.returncode == 143
    (kept,) = (tmp_path / "out/checkpoints").glob("checkpoint-*")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        told = [json.loads(child.stdout.readline()) for _ in range(4)]
        child.send_signal(signal.SIGTERM)
        child.stdout.read()
    assert any(f"resumed from {kept.name}" in str(event.get("detail")) for event in told)
    assert child.returncode == 143


@pytest.mark.slow
def test_a_dry_run_shows_a_row_and_trains_nothing(
    student_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(train_spec(student_dir, dataset)))
    words = command("train", "--spec", str(spec), "--dry-run")
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "--- learnt ---" in ended.stderr
    assert "6 steps, 1 of them warm-up" in ended.stderr
    assert events(ended.stdout)[-1]["event"] == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="torch computes with GNU's OpenMP on Linux")
@pytest.mark.parametrize(("wished", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_that_wait_give_their_cores_away(wished: dict[str, str], spins: str) -> None:
    refused = "main(['train', '--spec', 'none', '--out', 'none'])"
    code = f"from trainer.__main__ import main; {refused}; import torch"
    told = {"OMP_DISPLAY_ENV": "verbose", "CUDA_VISIBLE_DEVICES": "", **wished}
    words = [sys.executable, "-c", code]
    before = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    ended = subprocess.run(words, capture_output=True, text=True, env=before | told, check=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in ended.stderr


def test_what_is_no_dataset_is_refused(student_dir: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"train": train_spec(student_dir, tmp_path / "nothing")}))
    with pytest.raises(BadInput, match="is not a dataset"):
        run_recipe(recipe, tmp_path / "out", lambda event, fields: None)


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({}, "needs train or compress"),
        ({"train": {"method": "sequence_level", "student": "s"}}, "train.dataset"),
        ({"compress": {"stages": [{"kind": "wanda"}]}}, "compress.model"),
        ({"build": {}, "compress": {"model": "m", "stages": []}}, "build: Extra inputs"),
    ],
)
def test_a_recipe_without_what_it_needs_is_refused(
    tmp_path: Path, recipe: dict[str, Any], problem: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.raises(BadInput, match=problem):
        run_recipe(tmp_path / "recipe.yaml", tmp_path / "out", lambda event, fields: None)


@pytest.mark.slow
def test_a_recipe_runs_from_a_dataset_to_a_report(
    student_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    asked = {"skill": "s", "prompt": [{"role": "user", "content": "w1 w2"}], "check": "exact"}
    questions.write_text(json.dumps({**asked, "id": "q1", "answer": "w2 w1"}))
    recipe = {
        "train": train_spec(student_dir, dataset),
        "evaluate": {"data": str(questions), "max_new_tokens": 4},
        "compress": {
            "serve_check": False,
            "threads": 1,
            "stages": [{"kind": "wanda", "gate": {"max_accuracy_drop": None}}],
        },
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    made = run_recipe(tmp_path / "recipe.yaml", tmp_path / "out", lambda event, fields: None)
    chain = json.loads((tmp_path / "out/chain.json").read_text())
    assert [model["label"] for model in chain["models"]] == ["student base", "student", "wanda"]
    assert len(chain["training"]["steps"]) == 6
    assert (Path(made["report"]) / "report.html").is_file()


@pytest.mark.slow
def test_a_report_tells_of_this_recipes_stages_alone(
    student_dir: Path, dataset: Path, tmp_path: Path
) -> None:
    """Another recipe's are still there, in the same directory."""
    given = {"model": str(student_dir), "dataset": str(dataset), "threads": 1}

    def run(*stages: dict[str, Any]) -> list[tuple[str, int]]:
        recipe = {"compress": {**given, "serve_check": False, "stages": stages}}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        try:
            run_recipe(tmp_path / "recipe.yaml", tmp_path / "out", silent)
        finally:
            given_model, *models = json.loads((tmp_path / "out/chain.json").read_text())["models"]
            assert (given_model["id"], given_model["role"]) == (str(student_dir), "base")
            assert models[0]["source"] == str(student_dir)
            told.append([(model["label"], model["stage"]["index"]) for model in models])
        return told[-1]

    told: list[list[tuple[str, int]]] = []
    assert run({"kind": "wanda"}, {"kind": "magnitude"}) == [("wanda", 0), ("magnitude", 1)]
    assert run({"kind": "depth"}) == [("depth", 0)]
    with pytest.raises(GateFailed):
        run({"kind": "depth", "gate": {"max_kl": 1e-9}}, {"kind": "magnitude"})
    assert told[-1] == [("depth", 0)]
    with pytest.raises(BadInput, match="would leave 0 layers"):  # nothing ran: nothing is drawn
        run({"kind": "depth", "layers": 2})
    assert told[-1] == [("depth", 0)]
