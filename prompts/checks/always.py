"""What every completion of a kind must pass, whatever the spec says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prompts.record import Kind, Reason, ToolCall

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
    problem: str | None = None
    """Why the verifier could not compare them."""
    completion_tokens: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    """The functions that it calls."""
    uncallable: str | None = None
    """Why one of them can't be called so."""


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
    """Nothing but white space came back, and no function is called."""
    return None if reply.text.strip() or reply.tool_calls else "the completion is empty"


def refusal(reply: Reply) -> str | None:
    """The completion begins as refusals do; only the beginning counts, stories may apologise."""
    if reply.finish_reason in _FILTERED:
        return f"the server filtered it (finish_reason {reply.finish_reason!r})"
    return begins_with(reply.text, _REFUSALS)


def begins_with(text: str, phrases: Iterable[str]) -> str | None:
    """That the text begins with one of the phrases, whatever its case, quotes and apostrophes."""
    beginning = plain(text[:400]).lstrip(" \t\r\n\"'*")
    begins = next((phrase for phrase in phrases if beginning.startswith(plain(phrase))), None)
    return None if begins is None else f"it begins with {begins!r}"


def plain(text: str) -> str:
    """Lower case, straight apostrophes."""
    return text.replace("’", "'").lower()


def tool_call(reply: Reply) -> str | None:
    """A function is called that isn't there, or with arguments that it doesn't take."""
    return reply.uncallable


def no_answer(reply: Reply) -> str | None:
    """No answer could be parsed."""
    return None if reply.answer is not None else "no match of answer_pattern in the completion"


def not_compared(reply: Reply) -> str | None:
    """The verifier failed, or took too long."""
    return reply.problem


def wrong_answer(reply: Reply) -> str | None:
    """The answer was compared with the gold one, and differs."""
    if reply.right is not False:
        return None
    return f"answer {reply.answer!r}, gold {reply.gold!r}"


CHECKS: dict[Reason, Check] = {
    Reason.TRUNCATED: truncated,
    Reason.EMPTY: empty,
    Reason.REFUSAL: refusal,
    Reason.TOOL_CALL: tool_call,
    Reason.NO_ANSWER: no_answer,
    Reason.VERIFIER_FAILED: not_compared,
    Reason.WRONG_ANSWER: wrong_answer,
}

_ALWAYS = (Reason.TRUNCATED, Reason.EMPTY, Reason.REFUSAL)
_COMPARED = (Reason.VERIFIER_FAILED, Reason.WRONG_ANSWER)
ROW_CHECKS: dict[Kind, tuple[Reason, ...]] = {
    Kind.ICL: (*_ALWAYS, *_COMPARED),
    Kind.COT: (*_ALWAYS, Reason.NO_ANSWER, *_COMPARED),
    Kind.IF: (*_ALWAYS, Reason.TOOL_CALL),
}
