"""Seed and evaluation files hold what their readers expect, and share nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.demo import world
from examples.demo.seeds import write_all

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    out = tmp_path_factory.mktemp("seeds")
    counts = write_all(out, cot=60, icl=60, orders=60, evaluation=40)
    files = {path.name: read(path) for path in out.iterdir()}
    assert {name: len(rows) for name, rows in files.items()} == counts
    return files


def test_seed_fields_are_the_ones_that_templates_take(files: dict[str, Rows]) -> None:
    fields = {name: set(rows[0]) for name, rows in files.items()}
    assert fields["cot.seeds.jsonl"] == {"id", "question", "answer"}
    assert fields["icl.seeds.jsonl"] == {"id", "input", "output", "task"}
    assert fields["icl.pool.jsonl"] == {"id", "input", "output", "task"}
    assert fields["if.seeds.jsonl"] == {"id", "instruction", "answer"}
    assert fields["eval.icl.jsonl"] == {"id", "skill", "prompt", "answer", "kind", "check"}


def test_ids_are_unique_within_a_file(files: dict[str, Rows]) -> None:
    for name, rows in files.items():
        assert len({row["id"] for row in rows}) == len(rows), name


def test_a_question_leaves_the_answer_mode_to_the_template(files: dict[str, Rows]) -> None:
    for row in files["cot.seeds.jsonl"]:
        assert row["question"].endswith("?")
        assert world.split_of(row["question"]) == "seed"


def test_seeds_and_evaluation_share_nothing(files: dict[str, Rows]) -> None:
    asked = [row["prompt"][0]["content"] for name in files if "eval" in name for row in files[name]]
    for row in files["cot.seeds.jsonl"]:
        assert not any(prompt.startswith(row["question"]) for prompt in asked)
    assert not {row["instruction"] for row in files["if.seeds.jsonl"]} & set(asked)


def test_demonstrations_are_of_the_seeds_tasks_but_never_a_seed(files: dict[str, Rows]) -> None:
    seeds, pool = files["icl.seeds.jsonl"], files["icl.pool.jsonl"]
    assert {row["task"] for row in seeds} == {row["task"] for row in pool}
    assert not {row["id"] for row in seeds} & {row["id"] for row in pool}
    for task in {row["task"] for row in seeds}:
        shown = {row["output"] for row in pool if row["task"] == task}
        assert {row["output"] for row in seeds if row["task"] == task} <= shown


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]
