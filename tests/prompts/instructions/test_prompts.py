"""A recipe's own words for what self-instruct and evol-instruct ask."""

from typing import Any

import pytest
from pydantic import ValidationError

from prompts.record import Record, Rejected
from prompts.spec import InstructionBuild
from prompts.spec.writing import EvolPrompts, SelfInstructPrompts, told
from tests.prompts.instructions.test_evol import evol_plan
from tests.prompts.instructions.test_evol import run as run_evol
from tests.prompts.instructions.test_self_instruct import plan as self_plan
from tests.prompts.instructions.test_self_instruct import run as run_self
from tests.prompts.making import spec_of

WRITTEN = {
    "write": "{% for task in tasks %}* {{ task }}\n{% endfor %}Aufgabe {{ number }}:",
    "classify": "{{ instruction }} Klassen? Yes, No",
    "input": "{{ instruction }} Eingabe oder {{ no_input }}",
    "label": "{{ instruction }} Klasse {{ number }}",
    "labelled_input": "{{ instruction }} Eingabe mit {{ label }}",
}


SEED = {"id": "s", "instruction": "Nenne eine Frucht."}


def german(classes: str) -> Any:
    """FAKE teacher of those words."""

    def say(prompt: str) -> str:
        if "Aufgabe" in prompt:
            return "Nenne drei rote Früchte."
        if "Klassen?" in prompt:
            return classes
        if "Klasse " in prompt:
            return "rot"
        return "<none>" if "oder <none>" in prompt else "Kirsche"

    return say


def test_self_instruct_asks_in_the_recipes_words() -> None:
    made = self_plan(shown_seeds=2, shown_written=0, prompts=WRITTEN)
    prompts, row = run_self(made, german("No"))
    assert isinstance(row, Record)
    assert prompts[0].startswith("* ")
    assert prompts[0].endswith("Aufgabe 3:")
    assert prompts[1:] == [
        "Nenne drei rote Früchte. Klassen? Yes, No",
        "Nenne drei rote Früchte. Eingabe oder <none>",
        "Nenne drei rote Früchte.",
    ]
    prompts, row = run_self(made, german("Yes"))
    assert isinstance(row, Record)
    assert prompts[2].startswith("Nenne drei rote Früchte. Klasse ")
    assert prompts[3] == "Nenne drei rote Früchte. Eingabe mit rot"


def test_evol_instruct_asks_in_the_recipes_words() -> None:
    words = {
        "rewrite": "{{ how }} <{{ instruction }}>",
        "compare": "{{ first }} = {{ second }}?",
        "broaden": "Etwas anderes.",
    }
    asked: list[str] = []
    replies = iter(["Nenne einen Fluss.", "Different", "Der Rhein."])

    def say(prompt: str) -> str:
        asked.append(prompt)
        return next(replies)

    plan = evol_plan(rounds=1, operators=["broaden"], prompts=words)
    _, row = run_evol(plan, say, SEED)
    assert isinstance(row, Record)
    assert asked == [
        "Etwas anderes. <Nenne eine Frucht.>",
        "Nenne eine Frucht. = Nenne einen Fluss.?",
        "Nenne einen Fluss.",
    ]


@pytest.mark.parametrize(
    ("kind", "prompts", "words"),
    [
        ("self_instruct", {"write": "One more."}, "doesn't show tasks"),
        ("self_instruct", {"write": "{{ tasks }} {{ topic }}"}, "shows topic; there is tasks"),
        ("self_instruct", {"write": "{% for task in tasks %}"}, "syntax error in line 1"),
        ("self_instruct", {"classify": "{{ instruction.upper().x }}"}, "can't be rendered"),
        ("self_instruct", {"label": "{{ instruction }}"}, "doesn't show number"),
        ("self_instruct", {"input": " "}, "empty"),
        ("evol_instruct", {"rewrite": "{{ instruction }}"}, "doesn't show how"),
        ("evol_instruct", {"compare": "{{ first }}"}, "doesn't show second"),
        ("evol_instruct", {"broaden": ""}, "at least 1 character"),
        ("evol_instruct", {"widen": "More."}, "Extra inputs"),
    ],
)
def test_words_that_can_not_work_are_refused_by_their_field(
    kind: str, prompts: dict[str, str], words: str
) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        spec_of("if", method={"kind": kind, "prompts": prompts})
    (fault,) = raised.value.errors()
    assert fault["loc"][-2:] == ("prompts", *prompts)


def test_words_that_fail_at_a_row_reject_that_row() -> None:
    narrow = {"classify": "{{ instruction.split(' fruit')[1] }}"}
    _, row = run_self(self_plan(prompts=narrow), lambda prompt: "Nenne drei Früchte.")
    assert isinstance(row, Rejected)
    assert row.reason == "no_instruction"
    assert "can't be rendered" in row.detail
    narrow = {"rewrite": "{{ how }} {{ instruction.split(' fruit')[1] }}"}
    plan = evol_plan(prompts=narrow)
    _, row = run_evol(plan, lambda prompt: "Nenne mehr.", SEED)
    assert isinstance(row, Rejected)
    assert row.reason == "not_evolved"
    assert "can't be rendered" in row.detail
    assert plan.kept(SEED, []) is None


def test_what_is_asked_is_part_of_the_spec() -> None:
    """A job goes on with the words that it began with, whatever a later version says."""
    spec = spec_of("if", method={"kind": "self_instruct", "prompts": {"write": WRITTEN["write"]}})
    again = InstructionBuild.model_validate_json(spec.model_dump_json())
    assert again == spec
    kept = spec.model_dump()["method"]["prompts"]
    assert kept["write"] == WRITTEN["write"]
    assert kept["label"] == SelfInstructPrompts().label


def test_in_plain_english_they_say_what_is_wanted() -> None:
    words = SelfInstructPrompts()
    text = told(words.write, tasks=["Name a {{ fruit }}.", "Sing."], number=3)
    assert text.endswith(
        "\n\n1. Instruction: Name a {{ fruit }}.\n2. Instruction: Sing.\n3. Instruction:"
    )
    text = told(EvolPrompts().rewrite, how="Harder.", instruction="a\n\nb")
    assert "\nHarder.\n" in text
    assert text.endswith("\n\nInstruction:\na\n\nb\n\nNew instruction:")
