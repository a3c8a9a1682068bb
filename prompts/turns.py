"""Earlier turns of a conversation, as a seed brings them."""

from pydantic import TypeAdapter, ValidationError

from prompts.record import Message, Seed

_MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
_NEXT = {
    None: ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "calls": ("tool",),
    "tool": ("tool", "assistant"),
}
"""Who speaks after whom; calls: an assistant that calls functions."""


class TurnsError(ValueError):
    """Earlier turns that no conversation has."""


def earlier_turns(seed: Seed, field: str | None) -> tuple[Message, ...]:
    """The turns in a seed's field; none without a field, or where the seed has none.

    Raises TurnsError unless user and assistant take turns, calls of functions are answered by tools
    before the assistant goes on, and the assistant had the last word.
    """
    if field is None or not seed.get(field):
        return ()
    try:
        turns = _MESSAGES.validate_python(seed[field])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TurnsError(f"field {field!r}, at {place or 'its root'}: {first['msg']}") from None
    last: str | None = None
    for number, turn in enumerate(turns):
        if turn.role not in _NEXT[last]:
            expected = " or ".join(_NEXT[last])
            raise TurnsError(f"field {field!r}, turn {number}: {turn.role}, not {expected}")
        last = "calls" if turn.tool_calls else turn.role
    if last != "assistant":
        raise TurnsError(f"field {field!r}: the last of the earlier turns must be the assistant's")
    return turns
