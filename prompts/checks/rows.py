"""The checks that a spec lists: what is wrong with a reply by one of them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prompts.checks.always import Reply, begins_with, plain
from prompts.checks.language import likely_language
from prompts.checks.personal_data import find_personal_data
from prompts.checks.spec import (
    JsonSchemaCheck,
    LanguageCheck,
    LengthCheck,
    PersonalDataCheck,
    RefusalCheck,
    RegexCheck,
)
from prompts.patterns import PatternTimeoutError, found
from prompts.record import Reason
from prompts.schemas import misfit, read_json

LONGEST_JSON = 1_000_000
"""Characters of a completion that is read as JSON."""

RowCheck = (
    LengthCheck | LanguageCheck | RegexCheck | JsonSchemaCheck | RefusalCheck | PersonalDataCheck
)


@dataclass(frozen=True)
class Finding:
    """What a check found in a reply."""

    reason: Reason
    detail: str
    rejects: bool = True
    """False: the row is only flagged."""


def findings(checks: tuple[Any, ...], reply: Reply) -> Iterator[Finding]:
    """What the listed checks find, in their order; judges are not among them."""
    for check in checks:
        if check.kind in ROW_CHECKERS:
            fault = ROW_CHECKERS[check.kind](check, reply)
            if fault is not None:
                yield Finding(REASONS[check.kind], fault, rejects=_rejects(check))


def length_fault(check: LengthCheck, reply: Reply) -> str | None:
    """Too short or too long."""
    measured = (
        ("tokens", reply.completion_tokens, check.min_tokens, check.max_tokens),
        ("characters", len(reply.text), check.min_characters, check.max_characters),
    )
    for unit, length, low, high in measured:
        if low is not None and length < low:
            return f"{length} {unit}, at least {low} are asked for"
        if high is not None and length > high:
            return f"{length} {unit}, at most {high} are allowed"
    return None


def language_fault(check: LanguageCheck, reply: Reply) -> str | None:
    """Another language, or none that is likely enough."""
    language, probability = likely_language(reply.text)
    if language in check.languages and probability >= check.min_probability:
        return None
    wanted = ", ".join(check.languages)
    return f"most likely {language!r} ({probability:.2f}), asked for {wanted}"


def regex_fault(check: RegexCheck, reply: Reply) -> str | None:
    """A pattern that must match and doesn't, or must not and does, or takes too long."""
    try:
        for pattern in check.must:
            if not found(pattern, reply.text):
                return f"no match of {pattern!r}"
        for pattern in check.must_not:
            if found(pattern, reply.text):
                return f"a match of {pattern!r}"
    except PatternTimeoutError as error:
        return str(error)
    return None


def schema_fault(check: JsonSchemaCheck, reply: Reply) -> str | None:
    """No JSON, or none that the schema takes."""
    if len(reply.text) > LONGEST_JSON:
        return f"{len(reply.text)} characters are too many to read as JSON"
    try:
        value = read_json(_unfenced(reply.text))
    except ValueError as problem:
        return f"no JSON: {problem}"
    return misfit(check.json_schema, value)


def refusal_fault(check: RefusalCheck, reply: Reply) -> str | None:
    """One of the spec's own phrases."""
    if not check.anywhere:
        return begins_with(reply.text, check.phrases)
    text = plain(reply.text)
    phrase = next((phrase for phrase in check.phrases if plain(phrase) in text), None)
    return None if phrase is None else f"it holds {phrase!r}"


def personal_data_fault(check: PersonalDataCheck, reply: Reply) -> str | None:
    """Sorts of personal data and how many of each; never the data themselves."""
    if check.action == "off":
        return None
    counts = find_personal_data(reply.text, check.entities, check.min_score)
    if not counts:
        return None
    return ", ".join(f"{count} x {entity}" for entity, count in sorted(counts.items()))


ROW_CHECKERS: dict[str, Callable[[Any, Reply], str | None]] = {
    "length": length_fault,
    "language": language_fault,
    "regex": regex_fault,
    "json_schema": schema_fault,
    "refusal": refusal_fault,
    "personal_data": personal_data_fault,
}

REASONS: dict[str, Reason] = {
    "length": Reason.LENGTH,
    "language": Reason.LANGUAGE,
    "regex": Reason.PATTERN,
    "json_schema": Reason.JSON_SCHEMA,
    "refusal": Reason.REFUSAL,
    "personal_data": Reason.PERSONAL_DATA,
}


def _rejects(check: RowCheck) -> bool:
    return not isinstance(check, PersonalDataCheck) or check.action == "reject"


def _unfenced(text: str) -> str:
    fenced = re.fullmatch(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", text, re.DOTALL)
    return fenced.group(1) if fenced else text
