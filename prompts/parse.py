"""Takes a completion apart: the thinking, the rationale and the answer."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from prompts.patterns import LONGEST_TEXT, PatternTimeoutError, compile_pattern, last_match

_SENTENCE_END = re.compile(r"[.!?]['\")\]]*\s+|\n")
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Parsed:
    """An answer, None where there is none, and the rationale before its sentence."""

    answer: str | None
    rationale: str


@dataclass(frozen=True)
class Spoken:
    """What a reasoning model said, apart from what it thought."""

    text: str
    thinking: str | None


def split_thinking(text: str, reasoning: str | None = None) -> Spoken:
    """Cuts `<think>…</think>` off the beginning of a completion; several in a row too.

    `reasoning` is what the server had cut off already; it stands first. Some chat templates open
    the tag in the prompt, so that only the closing one is in the text. A tag that never closes
    leaves no text: the model was cut off, or stopped, while it thought.
    """
    thoughts = [reasoning.strip()] if reasoning and reasoning.strip() else []
    rest = text
    while rest.lstrip().startswith(_OPEN):
        thought, _, rest = rest.lstrip().removeprefix(_OPEN).partition(_CLOSE)
        thoughts.append(thought.strip())
    if _CLOSE in rest and _OPEN not in rest.partition(_CLOSE)[0]:
        thought, _, rest = rest.partition(_CLOSE)
        thoughts.append(thought.strip())
    kept = "\n".join(thought for thought in thoughts if thought)
    return Spoken(text if rest is text else rest.lstrip(), kept or None)


def parse_answer(text: str, pattern: str) -> Parsed:
    """The last match of `pattern` holds the answer; what stands before its sentence explains it.

    Without a match, or with a pattern that takes too long, all of the text is rationale.
    """
    start = max(0, len(text) - LONGEST_TEXT)
    try:
        last = last_match(pattern, text[start:])
    except PatternTimeoutError:
        last = None
    if last is None or not (last.group(1) or "").strip():
        return Parsed(None, text.strip())
    place = _sentence_start(text, start + last.start())
    return Parsed(last.group(1).strip(), text[:place].strip())


@lru_cache(maxsize=64)
def check_answer_pattern(pattern: str) -> str:
    """The pattern as it came. Raises ValueError unless it is one with exactly one group."""
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        raise ValueError(f"answer_pattern is {error}") from None
    if compiled.groups != 1:
        raise ValueError(
            f"answer_pattern must have exactly one group, the answer; it has {compiled.groups}"
            " (write (?:...) for groups that don't capture)"
        )
    return pattern


AnswerPattern = Annotated[str, AfterValidator(check_answer_pattern)]
"""A regular expression in a spec, refused unless it compiles and has one group."""


def _sentence_start(text: str, place: int) -> int:
    start = 0
    for end in _SENTENCE_END.finditer(text, 0, place):
        start = end.end()
    return start
