from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from prompts.instructions import MagpiePlan, slots, task_of, with_method
from prompts.instructions.pool import make_pool
from prompts.plan import Opening, Request, make_plan
from prompts.record import Call, Record, Rejected
from prompts.spec import InstructionBuild
from tests.prompts.making import TEACHER, answered, plan_of, spec_of

OPENING = Opening((5, 6), "<|user|>", (4,), ())
KNOWN = [{"id": "t0", "instruction": "Name three rivers of Asia."}]
SLOT = {"id": "round001-000003", "round": 1}


def spec(**changes: Any) -> InstructionBuild:
    method = {"kind": "magpie"} | changes.pop("method", {})
    found = InstructionBuild.model_validate(
        {"kind": "if", "teacher": "teacher", "method": method} | changes
    )
    return InstructionBuild.model_validate(found.model_dump(mode="json"))  # As it is stored.


def plan(opening: Opening = OPENING, **changes: Any) -> MagpiePlan:
    bare = make_plan(spec(**changes), None, replace(TEACHER, opening=opening))
    made = with_method(bare, lambda turn: make_pool(0.7, KNOWN if turn else [], []))
    assert isinstance(made, MagpiePlan)
    return made


def run(made: MagpiePlan, written: str | Call, slot: Any = SLOT) -> tuple[list[Request], Any]:
    calls: list[Call] = []
    asked: list[Request] = []
    while isinstance(step := made.next(slot, calls), tuple):
        (request,) = step
        asked.append(request)
        calls.append(answered(request, "Done." if len(asked) > 1 else written))
    assert made.next(slot, list(reversed(calls))) == step
    return asked, step


def test_a_turn_is_written_where_the_template_leaves_room_and_then_answered() -> None:
    asked, row = run(plan(sampling={"seed": 1}), " Tell a joke about owls.\n")
    first, second = asked
    assert first.tokens is not None
    assert (first.tokens.ids, first.tokens.stop_ids, first.tokens.scored_from) == (
        (5, 6),
        (4,),
        None,
    )
    assert (first.sampling.temperature, second.sampling.temperature) == (1.0, 0.0)
    assert second.tokens is None
    assert second.messages[-1].content == "Tell a joke about owls."
    assert isinstance(row, Record)
    assert task_of(row) == "Tell a joke about owls."
    assert (row.completion[-1].content, row.usage.completion_tokens) == ("Done.", 6)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("  ", "no_instruction"),
        ("...", "no_instruction"),
        ("one two three four five six", "no_instruction"),
        (Call(row="", text="Tell a", finish_reason="length"), "no_instruction"),
        (Call(row="", text="", finish_reason="error", error="no"), "teacher_error"),
        ("Name three rivers of Africa.", "not_novel"),
    ],
)
def test_what_is_no_instruction_or_no_news_is_not_answered(
    written: str | Call, reason: str
) -> None:
    asked, row = run(plan(method={"max_words": 5}), written)
    assert isinstance(row, Rejected)
    assert (len(asked), row.reason) == (1, reason)
    assert (row.resembles is not None) == (reason == "not_novel")


def test_its_fields_change_what_is_asked_and_kept() -> None:
    like = "Name three rivers of Africa."
    assert isinstance(run(plan(), like, {"id": "a", "round": 0})[1], Record)  # An empty pool.
    high = with_method(
        make_plan(spec(), None, replace(TEACHER, opening=OPENING)),
        lambda turn: make_pool(0.99, KNOWN, []),
    )
    assert isinstance(high, MagpiePlan)
    assert isinstance(run(high, like)[1], Record)
    own = plan(method={"sampling": {"temperature": 0.5, "max_tokens": 9, "seed": 3}})
    (request,) = run(own, "")[0]
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.5, 9)
    assert request.sampling.seed not in (None, 3)
    method = spec(method={"rounds": 2, "rows_per_round": 3}).method
    assert method.kind == "magpie"
    assert [slot["round"] for slot in slots(method)] == [0, 0, 0, 1, 1, 1]
    stopped = replace(OPENING, stop_ids=(), stop=("[/INST]",))
    (request,) = run(plan(stopped), "")[0]
    assert request.tokens is not None
    assert (request.tokens.stop_ids, request.tokens.stop) == ((), ("[/INST]",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "s"}, "seeds: method magpie has no seeds"),
        ({"turns": "talk"}, "turns: method magpie has no seeds"),
        ({"columns": {"a": "b"}}, "columns: method magpie has no seeds"),
        ({"system": "You know {{ topic }}."}, "no seeds to fill its fields from"),
        ({"template": "{{ instruction }} {{ input }}"}, "writes an instruction, not input"),
        ({"template": "Hello."}, "the template doesn't show it"),
        ({"incremental": True}, "writes all its rows anew"),
        ({"method": {"sampling": {"temperature": 0}}}, "the same instruction every time"),
        ({"method": {"sampling": {"temperature": 1, "enable_thinking": True}}}, "nobody thinks"),
    ],
)
def test_what_means_nothing_without_seeds_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**changes)


def test_other_builds_still_need_seeds_and_magpie_its_opening() -> None:
    for given in ({"seeds": []}, {"seeds": ""}):
        with pytest.raises(ValidationError, match="seeds"):
            spec_of("if", **given)
    with pytest.raises(ValueError, match="the template's opening"):
        with_method(plan_of(spec()), lambda turn: make_pool(0.7, [], []))
