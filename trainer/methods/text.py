"""Plain text to keep a student's language: a file's lines as rows that are learnt whole."""

import json
from pathlib import Path

import numpy as np

from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.methods.method import Setting


def read_text(place: str, setting: Setting) -> tuple[TokenRow, ...]:
    """One document a line, cut to max_length; BadInput names what can't be used."""
    texts = _texts(Path(place))
    encoded = setting.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    end = setting.tokenizer.eos_token_id
    closed = [[*ids, end] if end is not None else ids for ids in encoded]
    rows = tuple(
        whole_row(f"text-{number}", ids[: setting.max_length])
        for number, ids in enumerate(closed)
        if len(ids) > 1
    )
    if not rows:
        raise _empty(place)
    return rows


def check_text(place: str) -> None:
    """BadInput for what can't be read as text, or has none."""
    if not _texts(Path(place)):
        raise _empty(place)


def whole_row(name: str, ids: list[int]) -> TokenRow:
    """All tokens are learnt but the first, which nothing predicts."""
    return TokenRow(name, np.asarray(ids, dtype=np.int32), prompt_tokens=1)


def _empty(place: str) -> BadInput:
    return BadInput(f"{place} holds no text", "One document a line is needed.")


def _texts(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"text: {path} can't be read as UTF-8 text", str(error)) from error
    if path.suffix != ".jsonl":
        return lines
    return [_text(path, number, line) for number, line in enumerate(lines, start=1)]


def _text(path: Path, number: int, line: str) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} line {number} is no text", "Each line is an object with a field `text`."
        ) from error
