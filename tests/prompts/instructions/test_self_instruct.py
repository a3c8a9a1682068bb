import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from prompts.instructions import SelfInstructPlan, slots, with_method
from prompts.instructions.pool import TaskPool, make_pool, task_of
from prompts.record import Call, Record, Rejected, Seed
from prompts.spec.methods import SelfInstruct
from prompts.spec.writing import NO_INPUT
from tests.prompts.instructions.test_evol import answered
from tests.prompts.making import plan_of, spec_of

TASKS = [
    {"id": f"t{n}", "instruction": text}
    for n, text in enumerate(
        [
            "Name three rivers of Asia.",
            "Sort these words by length.",
            "Explain why the sky is blue.",
        ]
    )
]
SLOT = {"id": "round001-000003", "round": 1}


def plan(pool: TaskPool | None = None, **method: Any) -> SelfInstructPlan:
    spec = spec_of("if", method={"kind": "self_instruct", **method})
    made = with_method(plan_of(spec), lambda turn: pool or make_pool(0.7, TASKS, []))
    assert isinstance(made, SelfInstructPlan)
    return made


def teacher(
    task: str,
    classification: str = "No",
    given: str = NO_INPUT,
    label: str = "spam",
    answer: str = "An answer.",
) -> Callable[[str], str]:
    """FAKE: answers by what it is asked for."""

    def say(prompt: str) -> str:
        if "Write one more task" in prompt:
            return task
        if "(a classification task)?" in prompt:
            return classification
        if prompt.endswith("Label:"):
            return label
        return given if prompt.endswith("Input:") else answer

    return say


def run(
    made: SelfInstructPlan, say: Callable[[str], str], slot: Seed = SLOT
) -> tuple[list[str], Record | Rejected]:
    calls: list[Call] = []
    prompts: list[str] = []
    while isinstance(step := made.next(slot, calls), tuple):
        (request,) = step
        prompts.append(request.messages[-1].content)
        calls.append(answered(request, say(prompts[-1])))
    assert made.next(slot, list(reversed(calls))) == step
    return prompts, step


def test_a_task_with_input_is_written_and_answered() -> None:
    prompts, row = run(plan(), teacher("Translate a word.", given="pomme", answer="apple"))
    assert isinstance(row, Record)
    assert row.prompt[-1].content == "Translate a word.\n\npomme"
    assert row.completion[-1].content == "apple"
    assert task_of(row) == "Translate a word."
    assert (len(prompts), row.usage.completion_tokens) == (4, 4)


def test_a_task_without_input_is_answered_as_it_stands() -> None:
    _, row = run(plan(), teacher("Tell a short joke."))
    assert isinstance(row, Record)
    assert row.prompt[-1].content == "Tell a short joke."


def test_a_classification_task_gets_its_label_before_its_input() -> None:
    say = teacher("Is this mail spam or ham?", "Yes.", given="Win money now!", label="spam")
    prompts, row = run(plan(), say)
    assert isinstance(row, Record)
    assert row.prompt[-1].content == "Is this mail spam or ham?\n\nWin money now!"
    assert row.completion[-1].content == "spam"
    assert [prompt.rstrip()[-6:] for prompt in prompts[2:]] == ["Label:", "Input:"]
    assert "Label: spam" in prompts[3]


def test_rows_ask_for_different_labels() -> None:
    say = teacher("Is this mail spam or ham?", "Yes.", given="Win!")
    asked = {run(plan(), say, {"id": f"r{n}", "round": 0})[0][2] for n in range(30)}
    assert len(asked) == 5


def test_what_is_like_a_task_of_the_pool_is_rejected_before_more_is_asked() -> None:
    prompts, row = run(plan(), teacher("Name three rivers of Africa."))
    assert isinstance(row, Rejected)
    assert (row.reason, row.resembles, len(prompts)) == ("not_novel", "t0", 1)
    prompts, row = run(plan(make_pool(0.95, TASKS, [])), teacher("Name three rivers of Africa."))
    assert isinstance(row, Record)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("Go.", "instruction of 1 words"),
        ("word " * 200, "instruction of 200 words"),
        ("Describe what this picture shows.", "text can't hold: picture"),
    ],
)
def test_what_is_no_instruction_is_rejected(task: str, words: str) -> None:
    _, row = run(plan(), teacher(task))
    assert isinstance(row, Rejected)
    assert row.reason == "no_instruction"
    assert words in row.detail
    assert json.loads(row.seed) == SLOT
    assert row.raw == (task,)


def test_examples_come_from_seeds_and_from_what_was_written() -> None:
    pool = make_pool(0.7, TASKS, [])
    pool.add("w", "Compose a limerick concerning frogs.")
    written = first_prompt(plan(pool, shown_seeds=2, shown_written=1))
    assert written.count("Instruction:") == 4  # three are shown, the fourth is asked for
    assert "frogs" in written
    assert "frogs" not in first_prompt(plan(pool, shown_seeds=3, shown_written=0))


def test_other_rows_see_other_examples() -> None:
    made = plan(shown_seeds=1, shown_written=0)
    assert len({first_prompt(made, {"id": f"r{n}", "round": 0}) for n in range(20)}) == 3


def test_there_is_a_slot_for_each_row_of_each_round() -> None:
    method = SelfInstruct(kind="self_instruct", rounds=2, rows_per_round=3)
    made = list(slots(method))
    assert [slot["round"] for slot in made] == [0, 0, 0, 1, 1, 1]
    assert len({slot["id"] for slot in made}) == 6


def test_the_pool_takes_novel_tasks_only_and_is_the_same_again() -> None:
    pool = make_pool(0.7, TASKS, [])
    assert pool.add("a", "Write a haiku about snow.") is None
    found = pool.add("b", "Write a haiku about rain.")
    assert found is not None
    assert found.row == "a"
    assert pool.written == ["Write a haiku about snow."]


def test_the_pool_must_be_there() -> None:
    with pytest.raises(ValueError, match="pool of each round"):
        with_method(plan_of(spec_of("if", method={"kind": "self_instruct"})))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"template": "{{ question }}"}, "doesn't show it"),
        ({"template": "{{ instruction }} {{ topic }}"}, "not topic"),
        ({"signal": {"top_k": 4}}, "build of their own"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of("if", method={"kind": "self_instruct"}, **fields)


def first_prompt(made: SelfInstructPlan, slot: Seed = SLOT) -> str:
    step = made.next(slot, [])
    assert isinstance(step, tuple)
    return step[0].messages[-1].content
