"""What the trainer tells its parent: JSON lines, one event each, on standard output."""

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

Emit = Callable[[str, dict[str, Any]], None]
"""`emit(event, fields)`; passed to whatever has news."""


def claim_stdout() -> Emit:
    """Keep standard output for events; whatever libraries print goes to standard error.

    The file descriptors are swapped, not only `sys.stdout`: native code prints too.
    """
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return emitter(channel)


def emitter(channel: TextIO) -> Emit:
    """An `Emit` that writes one JSON line per event to a stream and flushes it."""

    def emit(event: str, fields: dict[str, Any]) -> None:
        channel.write(json.dumps({"event": event, **_finite(fields)}, ensure_ascii=False) + "\n")
        channel.flush()

    return emit


def silent(event: str, fields: dict[str, Any]) -> None:
    """An `Emit` for callers that want no news."""


def _finite(value: Any) -> Any:
    """NaN and infinity become null: bare NaN is not JSON and breaks strict readers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
