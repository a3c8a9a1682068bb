"""Functions that a teacher may call: in specs, seeds, turns, completions and on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prompts.dataset import assemble, import_dataset, read_rejected, read_rows, write_chunk
from prompts.intake import check_build
from prompts.plan import content_hash
from prompts.record import Call, FunctionCall, Message, Record, Rejected, ToolCall
from prompts.seeds import SeedError
from prompts.split import SPLITS
from prompts.tools import template_turn
from tests.prompts.making import ask, lines_of, plan_of, spec_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TIME = {"function": {"name": "time"}}
SEED = {"id": "i", "instruction": "What is the weather in Rome?"}
CALLS = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
}
EARLIER = [
    {"role": "user", "content": "And in Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [CALLS]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "Rain."},
    {"role": "assistant", "content": "It rains."},
]


def calling(name: str = "weather", arguments: str = '{"city": "Rome"}', text: str = "") -> Call:
    call = ToolCall(id="c2", function=FunctionCall(name=name, arguments=arguments))
    return Call(row="i", text=text, tool_calls=(call,), finish_reason="tool_calls")


def row_of(call: Call | str, seed: Any = SEED, **spec: Any) -> Record | Rejected:
    plan = plan_of(spec_of("if", **({"tools": [WEATHER, TIME]} | spec)))
    return ask(plan, seed, lambda request: call)[1]


def test_a_call_is_a_completion_and_the_functions_are_kept() -> None:
    asked, row = ask(plan_of(spec_of("if", tools=[WEATHER])), SEED, lambda request: calling())
    assert [tool.function.name for tool in asked[0].tools] == ["weather"]
    assert isinstance(row, Record)
    (said,) = row.completion
    assert (said.content, said.tool_calls) == ("", calling().tool_calls)
    assert json.loads(row.tools or "") == [WEATHER]
    words = row_of("It is sunny.")
    assert isinstance(words, Record)
    assert words.completion[0].tool_calls is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (calling("rain"), "calls 'rain'; there are weather, time"),
        (calling(arguments='{"city": '), "are no JSON"),
        (calling(arguments='{"town": "Rome"}'), "'city' is a required property"),
        (calling(arguments='{"city": 7}'), "7 is not of type 'string'"),
    ],
)
def test_calls_that_cannot_be_made_are_rejected(call: Call, words: str) -> None:
    row = row_of(call)
    assert isinstance(row, Rejected)
    assert row.reason == "tool_call"
    assert words in row.detail
    assert json.loads(row.raw[0])[0]["function"]["name"] == call.tool_calls[0].function.name  # type: ignore[index]


def test_without_functions_every_call_is_one_too_many() -> None:
    row = row_of(calling(), tools=None)
    assert isinstance(row, Rejected)
    assert "there are no functions" in row.detail


def test_each_seed_may_bring_its_own() -> None:
    row = row_of(calling("time", "{}"), SEED | {"own": [TIME]}, tools="own")
    assert isinstance(row, Record)
    assert json.loads(row.tools or "")[0]["function"]["name"] == "time"
    bare = row_of("Sunny.", tools="own")
    assert isinstance(bare, Record)
    assert bare.tools is None
    for own, words in (([{"function": {}}], "at 0.function.name"), ([TIME, TIME], "comes twice")):
        with pytest.raises(SeedError, match=f"line 1: field 'own'.*{words}"):
            check_build(spec_of("if", tools="own"), lines_of(SEED | {"own": own}))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"tools": [WEATHER, WEATHER]}, "a function's name comes twice"),
        ({"tools": []}, "at least 1 item"),
        ({"tools": [{"function": {"name": "no spaces"}}]}, "should match pattern"),
        (
            {"tools": [{"function": {"name": "f", "parameters": {"type": "text"}}}]},
            "no JSON schema",
        ),
        ({"tools": "own", "method": {"kind": "self_instruct"}}, "list the functions here"),
    ],
)
def test_functions_that_no_server_takes_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec_of("if", **spec)


def test_earlier_turns_may_call_and_answer() -> None:
    row = row_of("It is sunny.", SEED | {"talk": EARLIER}, turns="talk")
    assert isinstance(row, Record)
    assert [turn.role for turn in row.prompt] == ["user", "assistant", "tool", "assistant", "user"]
    called = row.prompt[1].tool_calls
    assert called is not None
    assert called[0].function.arguments == '{"city": "Oslo"}'
    assert (row.prompt[2].tool_call_id, row.prompt[2].name) == ("c1", "weather")
    for talk, words in (
        (EARLIER[:2] + EARLIER[3:], "turn 2: assistant, not tool"),
        (EARLIER[:1] + EARLIER[2:], "turn 1: tool, not assistant"),
        (EARLIER[:3], "must be the assistant's"),
        ([*EARLIER[:1], {"role": "assistant"}], r"at 1.content: Field required"),
    ):
        with pytest.raises(SeedError, match=words):
            check_build(spec_of("if", turns="talk"), lines_of(SEED | {"talk": talk}))


def test_a_dataset_holds_calls_and_gives_them_back(tmp_path: Path) -> None:
    rows = [
        row_of(calling(), SEED | {"talk": EARLIER}, turns="talk"),
        row_of(calling("rain"), SEED | {"id": "j"}),
        row_of("Sunny.", SEED | {"id": "k"}),
    ]
    chunk = write_chunk(tmp_path / "c.parquet", rows).path
    assemble(tmp_path / "d", [chunk], recipe={}, seeds=3)
    found = [row for split in SPLITS for row in read_rows(tmp_path / "d", split)]
    assert sorted(found, key=lambda row: row.id) == [rows[0], rows[2]]
    assert list(read_rejected(tmp_path / "d")) == [rows[1]]


@pytest.mark.parametrize("as_text", [False, True])
def test_foreign_rows_with_calls_are_imported(tmp_path: Path, as_text: bool) -> None:
    tools: Any = json.dumps([WEATHER]) if as_text else [WEATHER]
    completion = [{"role": "assistant", "content": None, "tool_calls": [CALLS]}]
    foreign = {"prompt": "Oslo?", "completion": completion, "tools": tools, "split": "train"}
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(foreign) + "\n")
    import_dataset(source, tmp_path / "d", kind="if")
    (row,) = read_rows(tmp_path / "d", "train")
    assert json.loads(row.tools or "") == [WEATHER]
    assert row.completion[0].tool_calls is not None


def test_calls_tell_rows_apart_and_plain_rows_keep_their_hash() -> None:
    asked = (Message(role="user", content="?"),)
    hashes = {
        content_hash(asked, (Message(role="assistant", content="", tool_calls=calls),))
        for calls in (None, calling().tool_calls, calling("time").tool_calls)
    }
    assert len(hashes) == 3
    # As it was before turns could call: what was built then is still found to be a duplicate.
    plain = content_hash(asked, (Message(role="assistant", content="!"),))
    assert plain == "ac9849c155e2269c49ab4c04bd5110774936b7694cb14888bfacc16bf40fea55"


def test_templates_get_arguments_as_objects() -> None:
    turn = template_turn(Message(role="assistant", content="", tool_calls=calling().tool_calls))
    assert turn["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert "tool_call_id" not in turn
    broken = calling(arguments="{").tool_calls
    turn = template_turn(Message(role="assistant", content="", tool_calls=broken))
    assert turn["tool_calls"][0]["function"]["arguments"] == "{"
