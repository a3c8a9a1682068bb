"""The rows of a dataset: what was asked, what the teacher said, and how the row ended."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from prompts.reason import Reason as Reason


class Frozen(BaseModel):
    """A value: compared by its content, never changed, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """What a row teaches."""

    ICL = "icl"
    COT = "cot"
    IF = "if"


def whole(given: Any) -> Any:
    """A text without halves of surrogate pairs: servers that cut a character in two send such, and
    neither UTF-8 nor Parquet takes them. What is no text passes as it is."""
    if not isinstance(given, str) or given.isascii():
        return given
    try:
        given.encode()
    except UnicodeEncodeError:
        return given.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return given


Said = Annotated[str, BeforeValidator(whole)]
"""What a model wrote."""


class FunctionCall(Frozen):
    """Which function is called, and with what."""

    name: Said
    arguments: Said
    """JSON, as the model wrote it; an object that is given in its place is written as JSON."""

    @field_validator("arguments", mode="before")
    @classmethod
    def _written(cls, given: Any) -> Any:
        return json.dumps(given, ensure_ascii=False) if isinstance(given, dict) else given


class ToolCall(Frozen):
    """A call that an assistant's turn asks for, in OpenAI's form."""

    id: Said | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    """Empty in an assistant's turn that only calls functions."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """Of an assistant's turn."""
    tool_call_id: str | None = None
    """Of a tool's turn: the call that it answers."""
    name: str | None = None
    """Of a tool's turn: the function that answers."""

    @model_validator(mode="before")
    @classmethod
    def _calls_alone_say_enough(cls, given: Any) -> Any:
        silent = isinstance(given, dict) and given.get("content") is None
        return {**given, "content": ""} if silent and given.get("tool_calls") else given


class Usage(Frozen):
    """Tokens that one row cost, over all the calls made for it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class End(StrEnum):
    """How a row ended. Every seed ends exactly once."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_NEEDED = "not_needed"
    """Target reached, budget spent or job cancelled before the row was asked."""


class CallSignal(Frozen):
    """What the teacher thought of one completion, token by token. T tokens, k kept of each."""

    token_ids: tuple[int, ...]
    """[T] as the teacher's tokenizer numbers them."""
    top_ids: tuple[tuple[int, ...], ...]
    """[T, k]"""
    top_logprobs: tuple[tuple[float, ...], ...]
    """[T, k]"""
    logprobs: tuple[float, ...]
    """[T] of the tokens themselves."""


class CallDraws(Frozen):
    """Random draws from what the teacher thought, token by token. T tokens, n draws of each."""

    token_ids: tuple[int, ...]
    """[T] as the teacher's tokenizer numbers them."""
    draws: tuple[tuple[int, ...], ...]
    """[T, n]"""
    weights: tuple[tuple[float, ...], ...]
    """[T, n] the importance of each: the weighted draws estimate the distribution without bias."""


class Call(Frozen):
    """One answer of the teacher: an entry of the ledger, paid for, never asked again.

    The key of an entry is (row, step, sample).
    """

    row: str
    """The seed's id."""
    step: int = 0
    """Which of the row's dependent requests this answers."""
    sample: int = 0
    """Which of the step's samples."""
    text: Said
    """The raw completion."""
    reasoning: Said | None = None
    """Reasoning that the server returned apart from the text."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """The functions that it calls."""
    finish_reason: str
    """As the server gave it: stop, length, ...; 'error' for a request refused for good."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: Said | None = None
    """What the server said when it refused for good."""
    teacher: str | None = None
    """Name of the teacher that answered; None: the plan's."""
    signal: CallSignal | CallDraws | None = None
    """What the request's `signal_top_k` or `signal_draws` asked for."""


class Judgement(Frozen):
    """What a judge said of a row."""

    teacher: str
    """Name of the teacher that judged."""
    score: float | None
    """On the check's scale; None: the reply held none."""
    reason: str


class Record(Frozen):
    """One row of a dataset. `prompt` and `completion` are TRL's conversational columns."""

    id: str
    kind: Kind
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    tools: str | None = None
    """The functions that the teacher could call, JSON, in OpenAI's form; None: there were none."""
    answer: str | None = None
    """The parsed answer; for instructions, None."""
    gold: str | None = None
    """The seed's gold answer, if it had one."""
    reasoning: str | None = None
    """The rationale alone, the final answer cut off."""
    demo_ids: tuple[str, ...] = ()
    """Ids of the demonstrations in the prompt, in order."""
    split: Literal["train", "validation", "test"]
    teacher: str
    teacher_revision: str | None = None
    """A digest of the teacher's weights or the name that its server reports."""
    sampling: str = "{}"
    """The sampling parameters, JSON: a string keeps the column's type stable."""
    finish_reason: str
    usage: Usage = Usage()
    confidence: float | None = None
    """Agreement among samples, 0..1; None with a single sample, and for a hinted row."""
    hinted: bool | None = None
    """The teacher was shown the gold answer, which `prompt` doesn't hold; None: it was not."""
    flags: tuple[str, ...] = ()
    """What checks found that flag and don't reject: personal_data."""
    judgements: tuple[Judgement, ...] = ()
    """One for each judge, in the order of the checks."""
    content_hash: str
    """SHA-256 of prompt and completion, hex."""
    seed: str
    """The seed as it came, JSON: nothing that the user gave is lost."""


def _or_none(given: Any) -> Any:
    """Files of before a column was there hold null."""
    return () if given is None else given


def _or_empty(given: Any) -> Any:
    return "{}" if given is None else given


class Rejected(Frozen):
    """A row that did not make it, with everything needed to see why or to try again."""

    id: str
    kind: Kind
    end: Annotated[Literal["rejected", "not_needed"], Field(description="never 'accepted'")]
    reason: str
    """A `Reason` for rejected rows; target, budget or cancelled for rows not needed."""
    detail: str = ""
    """What a person should know: the parsed answer beside the gold one, the server's words."""
    prompt: tuple[Message, ...] = ()
    raw: tuple[str, ...] = ()
    """What all its calls wrote, in the order of steps and samples, judges and rewritings too. Of a
    row that fell when the dataset was assembled, its completion."""
    completion: Annotated[tuple[Message, ...], BeforeValidator(_or_none)] = ()
    """Its own answer as it was read, the thinking cut off; of several samples the one that `answer`
    is of. Accepting the row by hand takes this. Empty where nothing was answered, and in datasets
    of before it was kept."""
    rationale: str | None = None
    """Of `completion` alone: the `reasoning` of the record that it would be."""
    reasoning: str | None = None
    """What all its calls thought."""
    finish_reason: str | None = None
    """Of `completion`; without one, of the last call."""
    tools: str | None = None
    """Like a record's; so are the fields below that it shares with records."""
    answer: str | None = None
    gold: str | None = None
    demo_ids: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    resembles: str | None = None
    """Id of the row that it is like, where that is why it was rejected."""
    teacher: str
    teacher_revision: str | None = None
    sampling: Annotated[str, BeforeValidator(_or_empty)] = "{}"
    confidence: float | None = None
    hinted: bool | None = None
    flags: Annotated[tuple[str, ...], BeforeValidator(_or_none)] = ()
    usage: Usage = Usage()
    seed: str


def as_rejected(row: Record, reason: Reason, detail: str) -> Rejected:
    """An accepted row as one that is not, with all that it holds."""
    shared = Record.model_fields.keys() & Rejected.model_fields.keys()
    return Rejected(
        **{name: getattr(row, name) for name in shared},
        end="rejected",
        reason=reason.value,
        detail=detail,
        raw=tuple(text for turn in row.completion for text in written(turn)),
        rationale=row.reasoning,
    )


def written(turn: Message) -> list[str]:
    """What a turn says: its words, and the functions that it calls."""
    calls = [calls_text(turn.tool_calls)] if turn.tool_calls else []
    return [*([turn.content] if turn.content else []), *calls]


def calls_text(calls: Sequence[ToolCall]) -> str:
    """Calls for a reader: JSON."""
    return json.dumps([call.model_dump(exclude_none=True) for call in calls], ensure_ascii=False)


Seed = dict[str, Any]
"""One line of a seeds file: `id` and whatever fields the template names."""
