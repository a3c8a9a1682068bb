import json
from collections.abc import Callable
from typing import Any

import pytest

from prompts.instructions import EvolPlan, with_method
from prompts.plan import Request
from prompts.record import Call, Record, Rejected, Seed
from prompts.spec.methods import EvolInstruct
from tests.prompts.making import plan_of, spec_of

SEED = {"id": "s1", "instruction": "Name a fruit.", "input": "It must be red."}
ASKED = "New instruction:"
COMPARED = "one word, Equal or Different"


def evol_plan(**method: Any) -> EvolPlan:
    spec = spec_of("if", method={"kind": "evol_instruct", **method})
    plan = with_method(plan_of(spec))
    assert isinstance(plan, EvolPlan)
    return plan


def run(
    plan: EvolPlan, teacher: Callable[[str], str], seed: Seed = SEED
) -> tuple[list[str], Record | Rejected]:
    """FAKE teacher: a function of the prompt's text. What was asked, and how the row ended."""
    calls: list[Call] = []
    while isinstance(step := plan.next(seed, calls), tuple):
        for request in step:
            assert (request.step, request.sample) not in {(c.step, c.sample) for c in calls}
            calls.append(answered(request, teacher(request.messages[-1].content)))
    again = plan.next(seed, list(reversed(calls)))
    assert again == step
    return [call.text for call in calls], step


def answered(request: Request, text: str) -> Call:
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text=text,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
    )


def teacher(*rewritings: str, verdict: str = "Different", answer: str = "A cherry.") -> Any:
    left = list(rewritings)

    def say(prompt: str) -> str:
        if prompt.endswith(ASKED):
            return left.pop(0)
        return verdict if COMPARED in prompt else answer

    return say


def test_what_was_rewritten_twice_is_answered() -> None:
    texts, row = run(evol_plan(), teacher("Name a red fruit.", "Name a small red fruit."))
    written = ["Name a red fruit.", "Different", "Name a small red fruit.", "Different"]
    assert texts == [*written, "A cherry."]
    assert isinstance(row, Record)
    assert row.prompt[-1].content == "Name a small red fruit."
    assert row.completion[-1].content == "A cherry."
    assert json.loads(row.seed) == SEED
    assert row.usage.completion_tokens == 5


def test_the_input_is_shown_to_the_first_rewriting_only() -> None:
    prompts: list[str] = []
    say = teacher("Name a red fruit.", "Name a small red fruit.")

    def listening(prompt: str) -> str:
        prompts.append(prompt)
        return str(say(prompt))

    run(evol_plan(compare=False), listening)
    assert ["It must be red." in prompt for prompt in prompts] == [True, False, False]


@pytest.mark.parametrize(
    ("rewriting", "words"),
    [
        ("Name a fruit!", "says the same as before"),
        ("  ", "it is empty"),
        ("Here is the rewritten instruction: name a berry.", "copies words of the request"),
    ],
)
def test_a_bad_rewriting_leaves_the_instruction_as_it_was(rewriting: str, words: str) -> None:
    _, row = run(evol_plan(compare=False), teacher(rewriting, "Name a berry."))
    assert isinstance(row, Record)
    assert row.prompt[-1].content == "Name a berry."
    _, row = run(evol_plan(compare=False, rounds=1), teacher(rewriting))
    assert isinstance(row, Rejected)
    assert row.reason == "not_evolved"
    assert words in row.detail


def test_a_rewriting_without_gain_is_eliminated_if_that_is_asked() -> None:
    say = teacher("Say a fruit's name.", verdict="Equal.")
    _, row = run(evol_plan(rounds=1), say)
    assert isinstance(row, Rejected)
    assert "asks for the same" in row.detail
    assert row.completion == ()  # No answer was asked for, though the raw texts are two.
    say = teacher("Say a fruit's name.", verdict="Equal.")
    _, row = run(evol_plan(rounds=1, compare=False), say)
    assert isinstance(row, Record)


@pytest.mark.parametrize("answer", ["!!!", "Well, sorry about that, no."])
def test_an_answer_that_says_nothing_eliminates_the_row(answer: str) -> None:
    _, row = run(evol_plan(rounds=1), teacher("Name a berry.", answer=answer))
    assert isinstance(row, Rejected)
    assert row.reason in ("not_evolved", "refusal")
    assert answer in row.raw
    assert [turn.content for turn in row.completion] == [answer]


def test_rows_draw_different_operators_and_only_those_given() -> None:
    plan, narrow = evol_plan(rounds=1), evol_plan(rounds=1, operators=["broaden"])
    asked, broad = set(), set()
    for number in range(40):
        seed = {"id": f"s{number}", "instruction": "Name a fruit."}
        for one, texts in ((plan, asked), (narrow, broad)):
            step = one.next(seed, [])
            assert isinstance(step, tuple)
            texts.add(step[0].messages[-1].content)
    assert len(asked) == 6
    assert len(broad) == 1


def test_rewritings_have_a_sampling_of_their_own() -> None:
    step = evol_plan(sampling={"temperature": 1.5, "seed": 3}).next(SEED, [])
    assert isinstance(step, tuple)
    assert step[0].sampling.temperature == 1.5
    assert step[0].sampling.seed not in (None, 3)


def test_the_split_is_that_of_the_seed_whatever_it_was_rewritten_to() -> None:
    spec = {"validation": 0.3, "test": 0.3}
    for number in range(12):
        seed = {"id": f"s{number}", "instruction": f"Name fruit {number}."}
        plain = spec_of("if", split=spec)
        step = plan_of(plain).next(seed, [Call(row=seed["id"], text="x", finish_reason="stop")])
        evolved = with_method(plan_of(spec_of("if", split=spec, method=EVOLVE)))
        assert isinstance(evolved, EvolPlan)
        _, row = run(evolved, teacher(f"Name a rare fruit {number}."), seed)
        assert isinstance(row, Record)
        assert isinstance(step, Record)
        assert row.split == step.split


EVOLVE = EvolInstruct(kind="evol_instruct", rounds=1, compare=False).model_dump()
