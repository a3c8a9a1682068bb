"""One row of somebody else's dataset, and the record that it becomes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from prompts.dataset.files import DatasetError
from prompts.parse import parse_answer
from prompts.plan import content_hash
from prompts.record import Kind, Message, Record
from prompts.spec import CotBuild, Split
from prompts.split import SPLITS, SplitName, split_of
from prompts.tools import tools_of, tools_text

_MESSAGES = TypeAdapter(tuple[Message, ...])
_UNKNOWN = "imported"


@dataclass(frozen=True)
class Foreign:
    """A row as it came."""

    place: str
    """For a person: which row of which file."""
    split: str | None
    """The split that the source says it is of."""
    values: Mapping[str, Any]


def to_record(row: Foreign, kind: Kind, split: Split) -> Record:
    """Raises DatasetError with the row's place and the column at fault."""
    prompt = _messages(row, "prompt", "user")
    completion = _messages(row, "completion", "assistant")
    if not all(turn.content.strip() or turn.tool_calls for turn in completion):
        raise _fault(row, "completion", "is empty")
    answer, reasoning = _text(row, "answer"), _text(row, "reasoning")
    if kind is Kind.COT and answer is None:
        parsed = parse_answer(completion[-1].content, _answer_pattern())
        answer, reasoning = parsed.answer, reasoning or parsed.rationale or None
    return Record(
        id=row.values["id"],
        kind=kind,
        prompt=prompt,
        completion=completion,
        tools=_tools(row),
        answer=answer,
        gold=_text(row, "gold"),
        reasoning=reasoning,
        split=_split(row, prompt, split),
        teacher=_text(row, "teacher") or _UNKNOWN,
        finish_reason=_text(row, "finish_reason") or _UNKNOWN,
        content_hash=content_hash(prompt, completion),
        seed=json.dumps(dict(row.values), ensure_ascii=False, default=str),
    )


def _messages(row: Foreign, column: str, role: str) -> tuple[Message, ...]:
    if column not in row.values:
        has = ", ".join(row.values)
        raise _fault(row, column, f"is missing; the row's columns: {has}")
    value = row.values[column]
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    try:
        messages = _MESSAGES.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"must be a text or a list of messages ({place or 'value'}: {first['msg']})"
        raise _fault(row, column, problem) from None
    if not messages:
        raise _fault(row, column, "is empty")
    return messages


def _text(row: Foreign, column: str) -> str | None:
    value = row.values.get(column)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    raise _fault(row, column, f"must be a text or a number, not {type(value).__name__}")


def _tools(row: Foreign) -> str | None:
    """Functions as a list, or as a list in JSON: both are about."""
    value = row.values.get("tools")
    try:
        return (
            tools_text(tools_of({"tools": json.loads(value)}, "tools"))
            if isinstance(value, str)
            else tools_text(tools_of({"tools": value}, "tools"))
        )
    except ValueError as error:
        raise _fault(row, "tools", f"can't be used: {error}") from None


def _split(row: Foreign, prompt: tuple[Message, ...], split: Split) -> SplitName:
    named = row.split or row.values.get("split")
    if named is None:
        turns = [[turn.role, turn.content] for turn in prompt]
        return split_of(json.dumps(turns, ensure_ascii=False), split)
    if named not in SPLITS:
        raise _fault(row, "split", f"is {named!r}; known are {', '.join(SPLITS)}")
    return cast(SplitName, named)


def _answer_pattern() -> str:
    return cast(str, CotBuild.model_fields["answer_pattern"].default)


def _fault(row: Foreign, column: str, problem: str) -> DatasetError:
    return DatasetError(f"{row.place}, column {column!r}: {problem}")
