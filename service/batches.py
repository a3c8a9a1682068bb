"""The input of a batch: OpenAI's form, checked line by line before anything is asked."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

URL = "/v1/chat/completions"
MOST_REQUESTS = 50_000
MOST_FAULTS = 100


@dataclass(frozen=True)
class Ask:
    """One request of the file."""

    line: int
    custom_id: str
    model: str
    """A teacher's name."""
    offset: int
    """Where its line begins: bodies are read when they are asked."""


class BatchInputError(Exception):
    """The file can't be asked; `faults` are in the form of OpenAI's batch errors."""

    def __init__(self, faults: list[dict[str, Any]]):
        super().__init__(f"line {faults[0]['line']}: {faults[0]['message']}")
        self.faults = faults


def scan(path: Path, teachers: Collection[str]) -> list[Ask]:
    """The requests of a file, in order. Raises `BatchInputError` with up to a hundred faults."""
    asks: list[Ask] = []
    faults: list[dict[str, Any]] = []
    seen: set[str] = set()
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found = _read(line, number, offset, teachers, seen)
                if isinstance(found, Ask):
                    asks.append(found)
                else:
                    faults.append(found)
            if len(faults) >= MOST_FAULTS or len(asks) > MOST_REQUESTS:
                break
            offset += len(line)
    if not asks and not faults:
        faults.append(_fault("empty_file", "the file holds no request", None, 1))
    if len(asks) > MOST_REQUESTS:
        message = f"a batch holds at most {MOST_REQUESTS:,} requests; cut the file"
        faults.append(_fault("too_many_tasks", message, None, MOST_REQUESTS + 1))
    if faults:
        raise BatchInputError(faults)
    return asks


def body_of(path: Path, ask: Ask) -> dict[str, Any]:
    """A request's body, as it stands in the file."""
    with path.open("rb") as lines:
        lines.seek(ask.offset)
        body: dict[str, Any] = json.loads(lines.readline())["body"]
    return body


def _read(
    line: bytes, number: int, offset: int, teachers: Collection[str], seen: set[str]
) -> Ask | dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return _fault("invalid_json_line", "this line isn't JSON", None, number)
    if not isinstance(row, dict):
        return _fault("invalid_json_line", "must be a JSON object", None, number)
    name = row.get("custom_id")
    if not isinstance(name, str) or not name:
        return _fault("missing_required_parameter", "must be a text", "custom_id", number)
    if name in seen:
        message = f"{name!r} stands in an earlier line; each must be of its own"
        return _fault("duplicate_custom_id", message, "custom_id", number)
    seen.add(name)
    if row.get("method") != "POST":
        return _fault("invalid_method", "must be POST", "method", number)
    if row.get("url") != URL:
        return _fault("invalid_url", f"must be {URL}", "url", number)
    return _read_body(row.get("body"), name, number, offset, teachers)


def _read_body(
    body: Any, name: str, number: int, offset: int, teachers: Collection[str]
) -> Ask | dict[str, Any]:
    if not isinstance(body, dict):
        return _fault("missing_required_parameter", "must be an object", "body", number)
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        message = "must be a list of messages"
        return _fault("missing_required_parameter", message, "body.messages", number)
    if body.get("stream"):
        return _fault("invalid_request", "a batch can't stream", "body.stream", number)
    model = body.get("model")
    if model not in teachers:
        known = ", ".join(sorted(teachers)) or "none"
        message = f"there is no teacher {model!r}; registered: {known}"
        return _fault("model_not_found", message, "body.model", number)
    return Ask(number, name, str(model), offset)


def _fault(code: str, message: str, param: str | None, line: int) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}
