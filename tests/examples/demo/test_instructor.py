"""The instructor's tasks are exact, and its lessons are what the recipes really ask."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from examples.demo import instructor, tasks, world
from examples.demo.shape import MODELS
from examples.demo.tasks import Order, Pick, answer_to, read_task
from examples.demo.train import Plan
from examples.demo.train_instructor import train
from prompts.instructions import slots, with_method
from prompts.instructions.pool import make_pool
from prompts.plan import Request
from prompts.spec.writing import NO_INPUT
from service.cli.recipes import read_recipe
from tests.prompts.making import answered, plan_of, spec_of

RECIPES = Path("examples/recipes")
LESSONS = 300


def test_a_task_is_read_as_it_is_told_and_its_answer_is_the_worlds() -> None:
    rng = Random(1)
    for _ in range(LESSONS):
        task, given = tasks.draw_task(rng, "train", tasks.MOST_STEPS)
        assert read_task(task.text) == task
        right = answer_to(f"{task.text}\n\n{given}" if given else task.text)
        assert right is not None
        if isinstance(task, Order) and not given and len(task.names) <= 3:
            assert len(right.splitlines()) == len(task.names)
    problem = world.draw_instruction(rng, "heldout", 3)
    assert answer_to(problem.user) == problem.completion


@pytest.mark.parametrize(
    "text",
    [
        "Sort these words: cat dog.",  # Too few.
        "Sort these words: cat dog cat.",
        "Sort these words: cat dog stone.",
        "Sort these words: cat dog pig",
        "Sort these words.",  # No list.
        "Sort these words: cat dog pig.\n\nfox cow van",  # Two.
        "Keep the first two of these words: cat dog pig. Then drop the last one. Then sort them.",
        "Sort these words: cat dog pig. Then fold them.",
        "Pick a kind: animal, fruit.\n\ncat",
        "Pick a kind: animal, fruit, stone.\n\ncat",
        "Pick a kind: animal, fruit, tool.\n\nhat",
        "Pick a kind: animal, fruit, tool.",
        "",
    ],
)
def test_what_is_no_task_or_can_not_be_carried_out_has_no_answer(text: str) -> None:
    assert answer_to(text) is None


def test_lessons_come_from_the_training_split_and_hold_no_heldout_pair() -> None:
    rng = Random(2)
    for _ in range(LESSONS):
        for lesson in (instructor.order, instructor.constrain, instructor.broaden):
            asked, reply = lesson(rng, "train")
            text = asked if lesson is instructor.order else reply
            task = read_task(text)
            assert isinstance(task, Order)
            assert task.split == "train"
            assert task.known


def test_rewritings_gain_and_verdicts_say_whether_they_do() -> None:
    rng = Random(3)
    longer = wider = 0
    for _ in range(LESSONS):
        for lesson in (instructor.constrain, instructor.complicate):
            asked, reply = lesson(rng, "train")
            before, after = told_order(asked.split("\n")[0]), told_order(reply)
            longer += len(after.names) == len(before.names) + 1
            wider += len(after.words) == len(before.words) + 1
            gained = before != after
            assert instructor.verdict(before, after) == ("Different" if gained else "Equal")
        asked, reply = instructor.compare(rng, "train")
        first, second = (told_order(line) for line in asked.split("\n")[:2])
        assert instructor.verdict(first, second) == reply
    assert min(longer, wider) > LESSONS / 2


def told_order(line: str) -> Order:
    task = read_task(line.removeprefix("Task: "))
    assert isinstance(task, Order)
    return task


def build_of(name: str) -> dict[str, Any]:
    build: dict[str, Any] = read_recipe(RECIPES / f"build-{name}.yaml", []).spec["build"]
    return {key: build[key] for key in ("kind", "method", "sampling")}


def seeds_of(name: str) -> list[Any]:
    build = read_recipe(RECIPES / f"build-{name}.yaml", []).spec["build"]
    lines = (RECIPES / build["seeds"]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_recipe_of_self_instruct_asks_what_was_taught() -> None:
    spec = spec_of(**build_of("self-instruct"))
    pool = make_pool(0.99, seeds_of("self-instruct"), [])
    plan = with_method(plan_of(spec), lambda turn: pool)
    slot = next(iter(slots(spec.method)))
    write = first(plan.next(slot, []))
    shown = [line.removeprefix("Task: ") for line in text_of(write).split("\n")[:-1]]
    assert text_of(write) == instructor.written("write", tasks=shown, number=len(shown) + 1)
    assert set(shown) <= {seed["instruction"] for seed in seeds_of("self-instruct")}
    pick = "Pick a kind: drink, weather, job."
    calls = [answered(write, pick)]
    asked = [instructor.written("classify", instruction=pick)]
    for reply in ("Yes", "drink", "tea"):
        step = first(plan.next(slot, calls))
        assert text_of(step) == asked.pop()
        calls.append(answered(step, reply))
        if reply == "Yes":
            label = first(plan.next(slot, calls))
            wanted = {instructor.written("label", instruction=pick, number=n) for n in range(1, 6)}
            assert text_of(label) in wanted
            asked.append(text_of(label))
        elif reply == "drink":
            asked.append(instructor.written("labelled_input", instruction=pick, label=reply))
    order = "Sort these words. Then reverse them."
    calls = [answered(write, order)]
    calls.append(answered(first(plan.next(slot, calls)), "No"))
    wanted_input = instructor.written("input", instruction=order, no_input=NO_INPUT)
    assert text_of(first(plan.next(slot, calls))) == wanted_input


def test_the_recipe_of_evol_instruct_asks_what_was_taught() -> None:
    spec = spec_of(**build_of("evol-instruct"))
    plan = with_method(plan_of(spec))
    lessons = set()
    for seed in seeds_of("evol-instruct")[:30]:
        step = first(plan.next(seed, []))
        for operator in spec.method.operators:
            how = spec.method.prompts.__dict__[operator]
            if text_of(step) == instructor.evolved(
                "rewrite", instruction=seed["instruction"], how=how
            ):
                lessons.add(operator)
        longer = f"{seed['instruction']} Then sort them."
        compare = first(plan.next(seed, [answered(step, longer)]))
        assert text_of(compare) == instructor.evolved(
            "compare", first=seed["instruction"], second=longer
        )
    assert lessons == set(spec.method.operators)


def first(step: Any) -> Request:
    assert isinstance(step, tuple)
    request: Request = step[0]
    return request


def text_of(request: Request) -> str:
    return request.messages[-1].content


@pytest.mark.slow
def test_training_goes_on_where_it_stood(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = Plan(role="teacher", work=tmp_path / "whole", steps=2, rows=4, parts=1, warmup_steps=1)
    whole, _ = train(plan, 0)
    parted = replace(plan, work=tmp_path / "parted")
    half, _ = train(replace(parted, steps=1), 0)
    resumed, _ = train(parted, 0)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(half.state_dict()[name], resumed.state_dict()[name])
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_the_bundled_model_reads_as_the_teacher_does() -> None:
    ours, teachers = (MODELS / name for name in ("instructor", "teacher"))
    for name in ("tokenizer.json", "chat_template.jinja", "config.json"):
        assert (ours / name).read_text() == (teachers / name).read_text()
    assert (ours / "model.safetensors").read_bytes() != (
        teachers / "model.safetensors"
    ).read_bytes()


def test_the_seeds_are_the_committed_ones_and_of_every_sort() -> None:
    rows = seeds_of("self-instruct")
    assert rows == tasks.seed_rows()
    read = [read_task(row["instruction"]) for row in rows]
    assert any(isinstance(task, Pick) for task in read)
    assert {bool(task.words) for task in read if isinstance(task, Order)} == {True, False}
