"""The rows of a dataset: what was asked, what the teacher said, and how the row ended."""

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


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


class Reason(StrEnum):
    """Why a row was rejected: a closed list, so that counts can be compared between builds."""

    TRUNCATED = "truncated"
    """The completion met its token limit."""
    EMPTY = "empty"
    """The completion holds nothing but white space."""
    REFUSAL = "refusal"
    """The teacher declined to answer."""
    NO_ANSWER = "no_answer"
    """No answer could be parsed from the completion."""
    WRONG_ANSWER = "wrong_answer"
    """The parsed answer is not equivalent to the gold answer."""
    VERIFIER_FAILED = "verifier_failed"
    """The answer could not be compared with the gold one: the verifier failed or took too long."""
    LOW_AGREEMENT = "low_agreement"
    """Too few of the samples agree on the answer."""
    TOOL_CALL = "tool_call"
    """A function is called that isn't there, or with arguments that its schema doesn't take."""
    LENGTH = "length"
    """The completion is shorter or longer than the length check allows."""
    LANGUAGE = "language"
    """The completion is in another language than the language check allows."""
    PATTERN = "pattern"
    """A pattern of the regex check that must match does not, or one that must not does."""
    JSON_SCHEMA = "json_schema"
    """The completion is no JSON, or none that the schema takes."""
    PERSONAL_DATA = "personal_data"
    """Personal data was found in the completion."""
    LOW_SCORE = "low_score"
    """A judge's score is below the threshold."""
    NO_SCORE = "no_score"
    """A judge's reply holds no score."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """Prompt and completion limit together exceed the teacher's context; nothing was asked."""
    TOO_FEW_DEMONSTRATIONS = "too_few_demonstrations"
    """The pool holds fewer usable demonstrations than the spec asks for; nothing was asked."""
    DUPLICATE = "duplicate"
    """Another row of this dataset has the same prompt and completion."""
    NEAR_DUPLICATE = "near_duplicate"
    """An earlier row, of this dataset or of one named, is nearly the same."""
    NOT_NOVEL = "not_novel"
    """Its ROUGE-L with an earlier row, or with one of the pool, reaches the limit."""
    CONTAMINATED = "contaminated"
    """It shares a text, or thirteen words in a row, with the evaluation set."""
    NO_INSTRUCTION = "no_instruction"
    """The teacher was to write an instruction, and its reply holds none that can be used."""
    NOT_EVOLVED = "not_evolved"
    """The evolved instruction failed the elimination: no gain, copied words, or no answer."""
    NOT_SCORABLE = "not_scorable"
    """The teacher's chat template can't write the row as tokens; nothing was asked."""
    TEACHER_ERROR = "teacher_error"
    """The teacher refused this request for good (a 4xx that no retry can mend)."""
    BY_HAND = "by_hand"
    """A person rejected it when the version before was reviewed."""


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
    """The raw completions, none lost."""
    reasoning: str | None = None
    """What the server returned apart from the text."""
    finish_reason: str | None = None
    answer: str | None = None
    gold: str | None = None
    demo_ids: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    resembles: str | None = None
    """Id of the row that it is like, where that is why it was rejected."""
    teacher: str
    usage: Usage = Usage()
    seed: str


def as_rejected(row: Record, reason: Reason, detail: str) -> Rejected:
    """An accepted row as one that is not, with all that it holds."""
    return Rejected(
        id=row.id,
        kind=row.kind,
        end="rejected",
        reason=reason.value,
        detail=detail,
        prompt=row.prompt,
        raw=tuple(turn.content for turn in row.completion),
        reasoning=row.reasoning,
        finish_reason=row.finish_reason,
        answer=row.answer,
        gold=row.gold,
        demo_ids=row.demo_ids,
        judgements=row.judgements,
        teacher=row.teacher,
        usage=row.usage,
        seed=row.seed,
    )


Seed = dict[str, Any]
"""One line of a seeds file: `id` and whatever fields the template names."""
