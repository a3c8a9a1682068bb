"""Functions that a teacher may call, and whether its calls can be made."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter
from pydantic import ValidationError as PydanticError

from prompts.record import Frozen, Message, Seed, ToolCall
from prompts.schemas import check_schema, misfit, read_json


class ToolsError(ValueError):
    """Functions in a seed that no server takes."""


class ToolFunction(Frozen):
    """What a function is called, what it is for and what it takes."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(check_schema)] = Field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    """A JSON schema of its arguments."""
    strict: bool | None = None
    """Told to servers that can keep a model to the schema."""


class Tool(Frozen):
    """A function in OpenAI's form."""

    type: Literal["function"] = "function"
    function: ToolFunction


_TOOLS: TypeAdapter[tuple[Tool, ...]] = TypeAdapter(tuple[Tool, ...])


def tools_of(seed: Seed, given: tuple[Tool, ...] | str | None) -> tuple[Tool, ...]:
    """The functions for a row: the spec's own, or those in the seed's field of that name; none
    where the seed has none. Raises ToolsError."""
    if not isinstance(given, str):
        return given or ()
    try:
        tools = _TOOLS.validate_python(seed.get(given) or ())
    except PydanticError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ToolsError(f"field {given!r}, at {place or 'its root'}: {first['msg']}") from None
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise ToolsError(f"field {given!r}: a function's name comes twice")
    return tools


def tools_text(tools: Sequence[Tool]) -> str | None:
    """The functions as a record keeps them."""
    return json.dumps(as_sent(tools), ensure_ascii=False) if tools else None


def as_sent(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The functions as a server is told."""
    return [tool.model_dump(mode="json", exclude_none=True) for tool in tools]


def calls_fault(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> str | None:
    """Why one of the calls can't be made; None if all can."""
    known = {tool.function.name: tool.function for tool in tools}
    for call in calls:
        name = call.function.name
        if name not in known:
            return f"it calls {name!r}; there are {', '.join(known) or 'no functions'}"
        try:
            arguments = read_json(call.function.arguments)
        except ValueError:
            return f"the arguments of {name!r} are no JSON: {call.function.arguments[:200]!r}"
        fault = misfit(known[name].parameters, arguments)
        if fault is not None:
            return f"the arguments of {name!r}: {fault}"
    return None


def template_turn(message: Message) -> dict[str, Any]:
    """A turn as chat templates take it: arguments as an object, nothing that is None."""
    turn = message.model_dump(exclude_none=True)
    for call in turn.get("tool_calls", ()):
        try:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        except ValueError:
            continue  # As the model wrote it: templates print texts, too.
    return turn
