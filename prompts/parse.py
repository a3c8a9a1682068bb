"""Takes a chain-of-thought completion apart: the rationale and the answer."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

_SENTENCE_END = re.compile(r"[.!?]['\")\]]*\s+|\n")


@dataclass(frozen=True)
class Parsed:
    """An answer, None where there is none, and the rationale before its sentence."""

    answer: str | None
    rationale: str


def parse_answer(text: str, pattern: str) -> Parsed:
    """The last match of `pattern` holds the answer; what stands before its sentence explains it.

    Without a match all of the text is rationale.
    """
    last = None
    for match in compile_answer_pattern(pattern).finditer(text):
        last = match
    if last is None or not (last.group(1) or "").strip():
        return Parsed(None, text.strip())
    return Parsed(last.group(1).strip(), text[: _sentence_start(text, last.start())].strip())


@lru_cache(maxsize=64)
def compile_answer_pattern(pattern: str) -> re.Pattern[str]:
    """Compiles an answer pattern. Raises ValueError unless it is one with exactly one group."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"answer_pattern is no regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(
            f"answer_pattern must have exactly one group, the answer; it has {compiled.groups}"
            " (write (?:...) for groups that don't capture)"
        )
    return compiled


def _check_pattern(pattern: str) -> str:
    compile_answer_pattern(pattern)
    return pattern


AnswerPattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression in a spec, refused unless it compiles and has one group."""


def _sentence_start(text: str, place: int) -> int:
    start = 0
    for end in _SENTENCE_END.finditer(text, 0, place):
        start = end.end()
    return start
