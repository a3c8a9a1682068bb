"""Whether a text holds something of an evaluation set: as a whole, or thirteen words in a row.

Words are compared without case and punctuation. Scripts written without spaces count each character
as a word. A run of words that stands in more than ten evaluation texts is a phrase of their
template, not a question, and is passed over.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

RUN_WORDS = 13
COMMON = 10
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_INPUT_FIELDS = ("prompt", "question", "instruction", "input", "text", "query", "problem")


@dataclass(frozen=True)
class Overlap:
    """What a text shares with an evaluation set."""

    row: str
    """Id of the evaluation row."""
    how: Literal["exact", "13-gram"]
    words: str
    """The words that both hold, normalised; of an exact one the first thirteen."""


class EvaluationSet:
    """The words of a named evaluation set, 8 bytes and a row number for each run of thirteen."""

    def __init__(self, name: str, texts: Iterable[tuple[str, str]]) -> None:
        """`texts` are (row id, text) pairs; texts without a word are passed over."""
        self.name = name
        self._rows: list[str] = []
        self._whole: dict[bytes, int] = {}
        self._runs: dict[bytes, int] = {}
        counts: Counter[bytes] = Counter()
        for row, text in texts:
            counts.update(self._add(row, words_of(text)))
        for run, count in counts.items():
            if count > COMMON:
                del self._runs[run]

    def find(self, text: str) -> Overlap | None:
        """What `text` shares with the set, exact matches first; None if nothing."""
        words = words_of(text)
        number = self._whole.get(_digest(words))
        if words and number is not None:
            return Overlap(self._rows[number], "exact", " ".join(words[:RUN_WORDS]))
        for run in _runs(words):
            number = self._runs.get(_digest(run))
            if number is not None:
                return Overlap(self._rows[number], "13-gram", " ".join(run))
        return None

    def find_in(self, texts: Iterable[str]) -> Overlap | None:
        """The first overlap that any of the texts has."""
        return next((found for text in texts if (found := self.find(text)) is not None), None)

    def __len__(self) -> int:
        return len(self._rows)

    def _add(self, row: str, words: tuple[str, ...]) -> set[bytes]:
        if not words:
            return set()
        number = len(self._rows)
        self._rows.append(row)
        self._whole.setdefault(_digest(words), number)
        runs = {_digest(run) for run in _runs(words)}
        for run in runs:
            self._runs.setdefault(run, number)
        return runs


def evaluation_texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(id, text) of what evaluation rows ask: user messages of `prompt`, or `question`,
    `instruction`, `input`, `text`, `query`, `problem`. Answers don't count: '5' is in any text.

    Raises ValueError for a row that has none of these.
    """
    for number, row in enumerate(rows, 1):
        name = str(row.get("id") or f"row-{number:06d}")
        texts = [text for field in _INPUT_FIELDS for text in _texts(row.get(field))]
        if not texts:
            fields = ", ".join(_INPUT_FIELDS)
            raise ValueError(f"evaluation row {name!r} has no text in any of {fields}")
        yield from ((name, text) for text in texts)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, case folded."""
    return tuple(_WORD.findall(text.casefold()))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if not isinstance(value, list):
        return []
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
    return [turn["content"] for turn in turns if isinstance(turn.get("content"), str)]


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(len(words) - RUN_WORDS + 1):
        yield words[start : start + RUN_WORDS]


def _digest(words: tuple[str, ...]) -> bytes:
    return blake2b("\0".join(words).encode(), digest_size=8).digest()
