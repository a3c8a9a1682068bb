"""What no spec may hold anywhere in it: texts that are none, and nests without end."""

from typing import Any

from prompts.fields import FieldError
from prompts.schemas import DEEPEST, deeper_than


def check_written(given: Any) -> None:
    """Raises ValueError, with the path, for a text that holds a NUL or half a surrogate pair (no
    database and no server takes it), and for what is nested too deeply."""
    if deeper_than(given, 2 * DEEPEST):
        raise ValueError(f"nested more than {2 * DEEPEST} deep")
    _check(given, "")


def _check(value: Any, path: str) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, path, "a name in it ")
            _check(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            _check(inner, f"{path}.{place}")


def _check_text(text: Any, path: str, what: str = "") -> None:
    problem = _problem(text) if isinstance(text, str) else None
    if problem is not None:
        raise FieldError(path, what + problem) if path else ValueError(what + problem)


def _problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character, which is no text"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "holds half of a surrogate pair, which is no text"
    return None
