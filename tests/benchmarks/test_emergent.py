"""The study of emergent abilities: what is asked, what is trained on, what is told. The study
itself: `python -m benchmarks.emergent --smoke --out DIR`."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from benchmarks.emergent import ARMS, SMOKE, Arm, spec_of, table
from benchmarks.emergent_data import (
    FEW,
    TASKS,
    TASKS_SHOWN,
    _direct,
    _held_out_stories,
    _held_out_tasks,
    asked_as,
    guessed,
    instructions,
    mappings,
    record_of,
    short_stories,
    stories,
    tasks,
    write_dataset,
)
from benchmarks.quality_table import Run
from prompts.dataset import read_rows
from prompts.record import Kind
from trainer.methods import METHODS
from trainer.spec import StepByStep, TrainSpec


def test_every_arm_is_a_training_that_finds_its_rows(tmp_path: Path) -> None:
    asked = {"cot": stories(3), "direct": stories(3), "icl": mappings(3), "if": instructions(3)}
    asked[TASKS] = tasks(3)
    asked[FEW] = asked[f"{FEW}-direct"] = short_stories(3)
    kinds = {"icl": Kind.ICL, "if": Kind.IF, TASKS: Kind.ICL}
    for arm in ARMS:
        made = spec_of(tmp_path, arm, tmp_path, 3, SMOKE, 2)
        spec = TypeAdapter[TrainSpec](TrainSpec).validate_python(made)
        assert (spec.optimization.seed, spec.optimization.threads) == (3, 2)
        rows = [
            record_of(one, kinds.get(arm.dataset, Kind.COT), "said", 1)
            for one in asked[arm.dataset]
        ]
        assert len(METHODS[spec.method].select(spec, rows)) == 3


def test_every_mapping_stands_behind_demonstrations_of_its_own() -> None:
    asked = mappings(40)
    assert asked[:5] == mappings(5)
    for one in asked:
        *shown, query = one.prompt.split("\n\n")
        inputs = {demo.splitlines()[0] for demo in shown}
        assert len(one.demo_ids) == len(inputs) == len(shown) >= 4
        assert query == f"Input: {json.loads(one.seed)['input']}\nOutput:"
        assert query.splitlines()[0] not in inputs
        assert all(demo.splitlines()[1].startswith("Output: ") for demo in shown)


def test_tasks_agree_and_keep_words_for_the_end(tmp_path: Path) -> None:
    """What a category's label is must not change, and no row may give an asked word away."""
    _held_out_tasks(tmp_path / "held.jsonl")
    held = [json.loads(line) for line in (tmp_path / "held.jsonl").read_text().splitlines()]
    alone = {row["id"]: row for row in held if row["skill"] == TASKS}
    shown = [row for row in held if row["skill"] == TASKS_SHOWN]
    new = {row["prompt"][0]["content"].split()[1]: row["answer"] for row in alone.values()}
    assert len(new) == len(shown) == 48
    assert len(set(new.values())) == 12
    labels: dict[str, str] = {}
    rows = [(one.prompt, one.gold) for one in tasks(200)]
    for prompt, answer in [*rows, *((row["prompt"][0]["content"], row["answer"]) for row in shown)]:
        *demonstrations, query = prompt.split("\n\n")
        pairs = [demonstration.split() for demonstration in demonstrations]
        assert answer in {pair[3] for pair in pairs}
        for word, label in [*((pair[1], pair[3]) for pair in pairs), (query.split()[1], answer)]:
            assert labels.setdefault(word, label) == label
    assert not new.keys() & {line.split()[1] for prompt, _ in rows for line in prompt.split("\n\n")}
    assert all(labels[word] == label for word, label in new.items())
    for row in shown:
        query = alone[row["id"].replace(TASKS_SHOWN, TASKS)]["prompt"][0]["content"]
        assert row["prompt"][0]["content"].endswith(f"\n\n{query}")


def test_none_of_the_few_stories_is_asked(tmp_path: Path) -> None:
    _held_out_stories(tmp_path / "held.jsonl")
    held = [json.loads(line) for line in (tmp_path / "held.jsonl").read_text().splitlines()]
    questions = {row["prompt"][0]["content"] for row in held}
    asked = short_stories(300)
    assert len(questions) == len({one.prompt for one in asked}) == 300
    assert not questions & {one.prompt for one in asked}
    assert all(row["skill"] == FEW for row in held)


def test_a_guess_is_any_of_the_labels_shown(tmp_path: Path) -> None:
    shown = "Input: a\nOutput: x\n\nInput: b\nOutput: y\n\nInput: c\nOutput:"
    rows = [
        {"prompt": [{"role": "user", "content": shown}], "answer": answer} for answer in ("x", "z")
    ]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(map(json.dumps, rows)))
    assert guessed(asked) == pytest.approx(0.25)


def test_direct_rows_are_the_same_problems_with_the_answer_alone(tmp_path: Path) -> None:
    asked = stories(12)
    steps = [record_of(one, Kind.COT, "Some steps.", n) for n, one in enumerate(asked)]
    write_dataset(tmp_path / "cot", steps)
    _direct(tmp_path, "cot", "direct")
    rows = list(read_rows(tmp_path / "direct", "train"))
    assert {row.id for row in rows} == {row.id for row in read_rows(tmp_path / "cot", "train")}
    assert all(row.completion[0].content == f"The answer is {row.gold}." for row in rows)
    assert len(list(read_rows(tmp_path / "direct", "validation"))) == 2


def test_arms_that_are_asked_otherwise_share_a_training(tmp_path: Path) -> None:
    """And no others: two arms in one folder would be one student measured twice."""
    plain = {
        arm.training: json.dumps([arm.start, arm.dataset, arm.fields])
        for arm in ARMS
        if not arm.asked
    }
    assert len(plain) == len([arm for arm in ARMS if not arm.asked])
    assert not any("." in training for training in plain)  # suffixes are set on it
    for arm in ARMS:
        assert plain[arm.training] == json.dumps([arm.start, arm.dataset, arm.fields])


def test_a_student_is_asked_behind_the_prefix_of_its_task(tmp_path: Path) -> None:
    steps = next(arm for arm in ARMS if arm.asked)
    rows = [{"id": "a", "prompt": [{"role": "user", "content": "How many?"}], "answer": "2"}]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = asked_as(tmp_path / "asked.jsonl", tmp_path / "again.jsonl", steps.asked)
    (row,) = map(json.loads, made.read_text().splitlines())
    spec = TypeAdapter[TrainSpec](TrainSpec).validate_python(
        spec_of(tmp_path, steps, tmp_path, 0, SMOKE, 1)
    )
    assert isinstance(spec, StepByStep)
    assert row["prompt"][-1]["content"] == f"{spec.rationale_prefix}How many?"
    assert {**row, "prompt": []} == {**rows[0], "prompt": []}


def test_the_table_has_both_ends() -> None:
    ends = {("base", "icl"): 0.1, ("pruned", "icl"): 0.2, ("teacher", "icl"): 0.9}
    base, cut = (
        next(arm for arm in ARMS if (arm.skill, arm.start) == ("icl", start))
        for start in ("base", "pruned")
    )

    def run(arm: Arm, accuracy: float, seconds: float) -> Run:
        return Run(arm.name, 0, accuracy, seconds, 2 * seconds, 7, 5000)

    told = table({base: [run(base, 0.4, 60), run(base, 0.6, 90)], cut: [run(cut, 0.55, 10)]}, ends)
    both = "50.0% ± 14.1% (2) | 10.0% | 90.0% | 50.0% | 75 s | 5,000 | 180 MiB |"
    assert f"| answers alone | {both}" in told
    cut_row = "55.0% (1) | 20.0% | 90.0% | 50.0% | 10 s | 5,000 | 20 MiB |"
    assert f"| pruned, answers alone | {cut_row}" in told
    with pytest.raises(KeyError):
        table({ARMS[0]: [run(ARMS[0], 0.5, 1)]}, ends)
