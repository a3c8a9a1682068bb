"""Checks of one completion. Pure: a reply in, what is wrong with it out."""

from collections.abc import Callable
from dataclasses import dataclass

from prompts.record import Kind, Reason

_CUT_SHORT = frozenset({"length", "abort"})
_FILTERED = frozenset({"content_filter"})
_REFUSALS = (
    "i'm sorry, but i",
    "i am sorry, but i",
    "i'm sorry, i can",
    "i'm sorry. i can",
    "sorry, but i",
    "sorry, i can",
    "i can't assist",
    "i can't help",
    "i can't provide",
    "i can't fulfill",
    "i can't comply",
    "i cannot assist",
    "i cannot help",
    "i cannot provide",
    "i cannot fulfill",
    "i cannot comply",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i won't be able to",
    "as an ai",
)


@dataclass(frozen=True)
class Reply:
    """One completion as its kind reads it."""

    text: str
    finish_reason: str
    answer: str | None = None
    rationale: str | None = None
    gold: str | None = None
    right: bool | None = None
    """Whether the answer equals the gold one; None: not compared."""


Check = Callable[[Reply], str | None]
"""What is wrong, for a person to read; None if nothing is."""


def first_fault(kind: Kind, reply: Reply) -> tuple[Reason, str] | None:
    """The first check of `kind` that the reply fails, with its words; None if it passes all."""
    for reason in ROW_CHECKS[kind]:
        fault = CHECKS[reason](reply)
        if fault is not None:
            return reason, fault
    return None


def truncated(reply: Reply) -> str | None:
    """The completion was cut off: at its token limit, or by the server."""
    if reply.finish_reason not in _CUT_SHORT:
        return None
    return f"the completion ended with finish_reason {reply.finish_reason!r}"


def empty(reply: Reply) -> str | None:
    """Nothing but white space came back."""
    return None if reply.text.strip() else "the completion is empty"


def refusal(reply: Reply) -> str | None:
    """The completion begins as refusals do; only the beginning counts, stories may apologise."""
    if reply.finish_reason in _FILTERED:
        return f"the server filtered it (finish_reason {reply.finish_reason!r})"
    beginning = reply.text[:200].replace("’", "'").lower().lstrip(" \t\r\n\"'*")
    begins = next((phrase for phrase in _REFUSALS if beginning.startswith(phrase)), None)
    return None if begins is None else f"it begins with {begins!r}"


def no_answer(reply: Reply) -> str | None:
    """No answer could be parsed."""
    return None if reply.answer is not None else "no match of answer_pattern in the completion"


def wrong_answer(reply: Reply) -> str | None:
    """The answer was compared with the gold one, and differs."""
    if reply.right is not False:
        return None
    return f"answer {reply.answer!r}, gold {reply.gold!r}"


CHECKS: dict[Reason, Check] = {
    Reason.TRUNCATED: truncated,
    Reason.EMPTY: empty,
    Reason.REFUSAL: refusal,
    Reason.NO_ANSWER: no_answer,
    Reason.WRONG_ANSWER: wrong_answer,
}

_ALWAYS = (Reason.TRUNCATED, Reason.EMPTY, Reason.REFUSAL)
ROW_CHECKS: dict[Kind, tuple[Reason, ...]] = {
    Kind.ICL: (*_ALWAYS, Reason.WRONG_ANSWER),
    Kind.COT: (*_ALWAYS, Reason.NO_ANSWER, Reason.WRONG_ANSWER),
    Kind.IF: _ALWAYS,
}
