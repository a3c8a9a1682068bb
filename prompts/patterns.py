"""Regular expressions of users: whatever they are, they end in bounded time on bounded text."""

from functools import lru_cache

import regex

LONGEST_TEXT = 200_000
"""Characters that are searched, the last ones of a longer text."""
LONGEST_PATTERN = 10_000
TIME_S = 1.0


class PatternTimeoutError(ValueError):
    """The search took too long: patterns such as `(a|aa)+$` try exponentially many ways."""


@lru_cache(maxsize=256)
def compile_pattern(source: str, ignore_case: bool = False) -> "regex.Pattern[str]":
    """Compiles a user's regular expression. Raises ValueError with what is wrong with it."""
    if len(source) > LONGEST_PATTERN:
        raise ValueError(f"a regular expression of {len(source)} characters; {LONGEST_PATTERN} go")
    try:
        return regex.compile(source, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None


def found(source: str, text: str) -> bool:
    """Whether the pattern matches anywhere. Raises PatternTimeoutError."""
    try:
        return compile_pattern(source).search(text[-LONGEST_TEXT:], timeout=TIME_S) is not None
    except TimeoutError:
        raise _too_slow(source) from None


def matches_whole(source: str, text: str, ignore_case: bool = False) -> bool:
    """Whether the pattern matches all of a text. Raises PatternTimeoutError."""
    if len(text) > LONGEST_TEXT:
        return False
    try:
        return compile_pattern(source, ignore_case).fullmatch(text, timeout=TIME_S) is not None
    except TimeoutError:
        raise _too_slow(source) from None


def last_match(source: str, text: str) -> "regex.Match[str] | None":
    """The last match of the pattern. Raises PatternTimeoutError."""
    last = None
    try:
        for match in compile_pattern(source).finditer(text, timeout=TIME_S):
            last = match
    except TimeoutError:
        raise _too_slow(source) from None
    return last


def _too_slow(source: str) -> PatternTimeoutError:
    return PatternTimeoutError(f"the pattern {source[:60]!r} was not done after {TIME_S:g} s")
