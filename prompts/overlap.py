"""Whether a text holds something of an evaluation set: as a whole, or thirteen words in a row.

A row of several fields is a whole too, whatever fields ask the same and in which order. Words are
compared without case and punctuation. Scripts written without spaces count each character as a
word. A run of words that stands in more than ten evaluation rows is a phrase of their template, not
a question, and is passed over.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

Words = tuple[str, ...]
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
        """`texts` are (row id, text) pairs, those of a row one behind the other; texts without a
        word are passed over."""
        self.name = name
        self._rows: list[str] = []
        self._whole: dict[bytes, int] = {}
        self._runs: dict[bytes, int] = {}
        counts: Counter[bytes] = Counter()
        for row, pairs in groupby(texts, key=itemgetter(0)):
            counts.update(self._add(row, _worded(text for _, text in pairs)))
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

    def find_row(self, row: Mapping[str, Any], shown: Sequence[str] = ()) -> Overlap | None:
        """What a row shares that shows these texts in its prompt: one of them, all of them, or
        what the row's own fields ask, as evaluation rows do."""
        for texts in (shown, _asked(row)):
            found = self.find("\n".join(texts)) or self._find_together(_worded(texts))
            if found is not None:
                return found
        return None

    def __len__(self) -> int:
        return len(self._rows)

    def _find_together(self, texts: Sequence[Words]) -> Overlap | None:
        number = self._whole.get(_together(texts))
        if not texts or number is None:
            return None
        words = [word for text in texts for word in text]
        return Overlap(self._rows[number], "exact", " ".join(words[:RUN_WORDS]))

    def _add(self, row: str, texts: Sequence[Words]) -> set[bytes]:
        """The runs of a row's texts, each once, however many of them hold it."""
        if not texts:
            return set()
        number = len(self._rows)
        self._rows.append(row)
        joined = tuple(word for text in texts for word in text)
        for whole in (*map(_digest, texts), _digest(joined), _together(texts)):
            self._whole.setdefault(whole, number)
        runs = {_digest(run) for text in texts for run in _runs(text)}
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
        texts = _asked(row)
        if not texts:
            fields = ", ".join(_INPUT_FIELDS)
            raise ValueError(f"evaluation row {name!r} has no text in any of {fields}")
        yield from ((name, text) for text in texts)


def words_of(text: str) -> Words:
    """The words of a text, case folded."""
    return tuple(_WORD.findall(text.casefold()))


def _asked(row: Mapping[str, Any]) -> list[str]:
    return [text for field in _INPUT_FIELDS for text in _texts(row.get(field))]


def _worded(texts: Iterable[str]) -> list[Words]:
    return [words for text in texts if (words := words_of(text))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if not isinstance(value, list):
        return []
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
    return [turn["content"] for turn in turns if isinstance(turn.get("content"), str)]


def _runs(words: Words) -> Iterator[Words]:
    for start in range(len(words) - RUN_WORDS + 1):
        yield words[start : start + RUN_WORDS]


def _together(texts: Sequence[Words]) -> bytes:
    """Of several texts, in any order; of a single one like `_digest`."""
    joined = "\0\0".join(sorted("\0".join(words) for words in texts))
    return blake2b(joined.encode(), digest_size=8).digest()


def _digest(words: Words) -> bytes:
    return blake2b("\0".join(words).encode(), digest_size=8).digest()
