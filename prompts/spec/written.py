"""What no spec may hold anywhere in it: texts that are none, and nests without end."""

from typing import Any

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
            _check(name, f"a name in {path or 'it'}")
            _check(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            _check(inner, f"{path}.{place}")


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise ValueError(f"{path}: holds a NUL character, which is no text")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{path}: holds half of a surrogate pair, which is no text")
