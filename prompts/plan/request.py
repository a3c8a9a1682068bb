"""What passes between a plan and those who ask the teacher."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prompts.record import Message, Record
from prompts.spec import Sampling
from prompts.tools import Tool

REFUSED = "error"
"""The finish_reason of a Call that the server refused for good."""

NotNeeded = Literal["target", "budget", "cancelled"]


SCORES = 3
"""The step of a request that scores a completion which is there already."""


class EncodeError(ValueError):
    """A row that can't be written as token ids."""


@dataclass(frozen=True)
class Encoded:
    """A row as its tokens, exactly those that a student is trained on."""

    ids: tuple[int, ...]
    prompt_tokens: int
    """How many of them are the prompt's."""


@dataclass(frozen=True)
class Opening:
    """Where a chat template leaves room for a user's words."""

    ids: tuple[int, ...]
    """All that stands before them."""
    text: str
    """The same, for a person."""
    stop_ids: tuple[int, ...] = ()
    """The token that ends them, if it is one of its own."""
    stop: tuple[str, ...] = ()
    """The text that ends them otherwise."""


@dataclass(frozen=True)
class TeacherFacts:
    """What a plan must know of the teacher; found out before, passed in."""

    name: str
    """As registered, and as the spec names it."""
    revision: str | None = None
    context_tokens: int | None = None
    """None: unknown; then no prompt is refused for its length."""
    count_tokens: Callable[[tuple[Message, ...], tuple[Tool, ...]], int] | None = None
    """Tokens of a conversation and the functions that may be called in it, under the teacher's chat
    template, generation prompt included."""
    encode: Callable[[Record], Encoded] | None = None
    """A row under the teacher's chat template, for builds that rescore. Raises EncodeError."""
    opening: Opening | None = None
    """For builds whose instructions the teacher writes as a user's turn."""


@dataclass(frozen=True)
class Tokens:
    """A prompt as token ids: sent as it stands, without the server's chat template."""

    ids: tuple[int, ...]
    scored_from: int | None = None
    """The ids from this place on are scored, and nothing is written behind them; None: they are
    continued."""
    stop_ids: tuple[int, ...] = ()
    """Tokens that end what is written."""
    stop: tuple[str, ...] = ()
    """Texts that do, beside the sampling's."""


@dataclass(frozen=True)
class Request:
    """One question to the teacher; the ledger's entry for it has the key (row, step, sample)."""

    row: str
    step: int
    sample: int
    messages: tuple[Message, ...]
    sampling: Sampling
    """With the seed of this row, step and sample in `seed`."""
    teacher: str
    """Name of the registered teacher that is asked: a judge may be another one than the row's."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the server is told to keep the completion to."""
    signal_top_k: int | None = None
    """Ask for the log-probabilities of this many tokens per position, kept as `Call.signal`."""
    signal_draws: int | None = None
    """Ask for so many random draws per position in its place: a teacher in process alone can."""
    tools: tuple[Tool, ...] = ()
    """Functions that may be called."""
    prefix: str | None = None
    """Key of a beginning that many prompts share: once one request has warmed it, the server's
    prefix cache holds it for the others."""
    tokens: Tokens | None = None
    """Asked in place of `messages`, which then only tell a person what it is about."""
