"""Verifiers as values: what the gold answer is, and whether two answers are the same."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from prompts.patterns import PatternTimeoutError, compile_pattern, matches_whole
from prompts.verify.errors import GoldError, VerifyError
from prompts.verify.number import gold_answer, same_number
from prompts.verify.spec import (
    ChoiceVerifier,
    ExactVerifier,
    JsonVerifier,
    MathVerifier,
    NoVerifier,
    NumericVerifier,
    PythonVerifier,
    RegexVerifier,
    VerifierSpec,
)
from prompts.verify.symbolic import same_expression

ALLOW = "RETORT_ALLOW_PYTHON_VERIFIERS"
Same = Callable[[str, str], bool]
"""(answer, gold or another answer) -> whether they are equivalent. Raises VerifyError."""


@dataclass(frozen=True)
class Verifier:
    """Compares answers. Neither function keeps anything between calls."""

    right: Same | None
    """(answer, gold); None: nothing is compared with gold."""
    same: Same
    """(answer, another answer): who votes for whom."""
    slow: bool = False
    """Whether a comparison may take seconds: not for an event loop's thread."""


def make_verifier(spec: VerifierSpec, allow_python: bool = False) -> Verifier:
    """The verifier of a spec.

    Raises VerifyError for a Python function that isn't allowed, or can't be imported.
    """
    match spec:
        case NoVerifier():
            return Verifier(None, _same_words)
        case NumericVerifier():
            return Verifier(same_number, same_number)
        case MathVerifier():
            symbolic = partial(same_expression, timeout_s=spec.timeout_s)
            return Verifier(symbolic, symbolic, slow=True)
        case ChoiceVerifier():
            return _same_both(lambda one, other: choice_of(spec, one) == choice_of(spec, other))
        case ExactVerifier():
            return _same_both(lambda one, other: _words(spec, one) == _words(spec, other))
        case RegexVerifier():
            return Verifier(partial(_fits, ignore_case=spec.ignore_case), _same_words, slow=True)
        case JsonVerifier():
            return _same_both(_same_json)
        case PythonVerifier():
            function = load_function(spec.function, allow_python)
            return Verifier(function, function, slow=True)


def gold_text(spec: VerifierSpec, value: Any) -> str:
    """The gold answer in a seed's field, as text.

    Raises GoldError if no answer could ever be compared with it.
    """
    match spec:
        case NumericVerifier():
            return gold_answer(value)
        case ChoiceVerifier():
            return _gold_choice(spec, value)
        case RegexVerifier():
            return _gold_pattern(value)
        case JsonVerifier():
            return _gold_json(value)
        case _:
            return as_text(value)


def choice_of(spec: ChoiceVerifier, text: str) -> str | None:
    """Which of the choices a text begins with; None if none."""
    bare = re.sub(r"^[\W_]+", "", text.casefold())
    for choice in sorted(spec.choices, key=len, reverse=True):
        folded = re.sub(r"^[\W_]+", "", choice.casefold().strip()) or choice.casefold().strip()
        if bare.startswith(folded) and not re.match(r"\w", bare[len(folded) :]):
            return choice
    return None


def load_function(path: str, allowed: bool) -> Same:
    """A user's function, `package.module:name`. Raises VerifyError."""
    if not allowed:
        raise VerifyError(f"Python verifiers are not allowed here; {ALLOW}=true allows them")
    module, _, name = path.partition(":")
    try:
        function = import_module(module).__dict__[name]
    except KeyError:
        raise VerifyError(f"{path!r} can't be imported: {module} has no {name!r}") from None
    except (Exception, SystemExit) as error:  # The user's module may raise anything.
        problem = f"{type(error).__name__}: {error}"
        raise VerifyError(f"{path!r} can't be imported: {problem}") from error
    if not callable(function):
        raise VerifyError(f"{path!r} is no function")

    def same(answer: str, gold: str) -> bool:
        try:
            return bool(function(answer, gold))
        except (Exception, SystemExit) as error:  # It may raise anything; the row ends with it.
            raise VerifyError(f"{path} raised {type(error).__name__}: {error}") from error

    return same


def as_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _same_both(same: Same) -> Verifier:
    return Verifier(same, same)


def _same_words(one: str, other: str) -> bool:
    return one.split() == other.split()


def _words(spec: ExactVerifier, text: str) -> list[str]:
    return (text.casefold() if spec.ignore_case else text).split()


def _fits(answer: str, pattern: str, ignore_case: bool) -> bool:
    try:
        return matches_whole(pattern, answer.strip(), ignore_case)
    except PatternTimeoutError as error:
        raise VerifyError(str(error)) from error


def _same_json(one: str, other: str) -> bool:
    try:
        return bool(_typed(_json_in(one)) == _typed(_json_in(other)))
    except (ValueError, RecursionError):
        return False


def _json_in(text: str) -> Any:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    return json.loads(fenced.group(1) if fenced else text)


def _typed(value: Any) -> Any:
    """Python takes True for 1; JSON does not."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return ("bool", value) if isinstance(value, bool) else value


def _gold_choice(spec: ChoiceVerifier, value: Any) -> str:
    choice = choice_of(spec, as_text(value))
    if choice is None:
        listed = ", ".join(spec.choices)
        raise GoldError(f"the gold answer {as_text(value)[:80]!r} is none of the choices {listed}")
    return choice


def _gold_pattern(value: Any) -> str:
    if not isinstance(value, str):
        raise GoldError("the gold answer must be a text, a regular expression")
    try:
        compile_pattern(value)
    except ValueError as error:
        raise GoldError(f"the gold answer is {error}") from error
    return value


def _gold_json(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    try:
        _json_in(value)
    except (ValueError, RecursionError) as error:
        raise GoldError(f"the gold answer is no JSON: {error}") from error
    return value
