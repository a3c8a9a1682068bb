from typing import Any

import pytest

from prompts.intake import check_build
from prompts.record import Record
from prompts.seeds import SeedError
from tests.prompts.making import ask, lines_of, plan_of, spec_of

HI = {"role": "user", "content": "Hi."}
HELLO = {"role": "assistant", "content": "Hello."}


def test_earlier_turns_stand_between_system_and_prompt() -> None:
    plan = plan_of(spec_of("if", system="Be kind.", turns="talk"))
    seed = {"id": "i", "instruction": "And now?", "talk": [HI, HELLO]}
    _, row = ask(plan, seed, lambda request: "Now we work.")
    assert isinstance(row, Record)
    shown = [(turn.role, turn.content) for turn in row.prompt]
    assert shown == [
        ("system", "Be kind."),
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "And now?"),
    ]


def test_a_seed_without_earlier_turns_starts_a_conversation() -> None:
    plan = plan_of(spec_of("if", turns="talk"))
    asked, _ = ask(plan, {"id": "i", "instruction": "Go."}, lambda request: "Gone.")
    assert len(asked[0].messages) == 1


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ("Hi", "field 'talk', at its root"),
        ([{"role": "user"}], "at 0.content"),
        ([{"role": "narrator", "content": "x"}], "at 0.role"),
        ([HELLO], "turn 0: assistant, not user"),
        ([HI, HI], "turn 1: user, not assistant"),
        ([HI], "must be the assistant's"),
    ],
)
def test_turns_that_no_conversation_has_are_refused(turns: Any, words: str) -> None:
    seeds = lines_of({"instruction": "Go."}, {"instruction": "Go.", "talk": turns})
    with pytest.raises(SeedError, match="line 2: .*" + words):
        check_build(spec_of("if", turns="talk"), seeds)
