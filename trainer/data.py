"""Dataset rows as token ids with one completion-only mask: made here, once, for every method.

B rows of a batch, T tokens of its longest row.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts.dataset import DatasetError, read_rows
from prompts.record import Message, Record
from prompts.tools import template_turn
from trainer.errors import BadInput

RENDER_ROWS = 1024
"""Rows rendered and tokenized together."""
BROKEN_TEMPLATE = (
    jinja2.TemplateError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""A template's expressions are Python's, and so are their faults."""


@dataclass(frozen=True)
class TokenRow:
    """One row: all its token ids, of which the first `prompt_tokens` are not trained on."""

    row: str
    ids: NDArray[np.int32]
    prompt_tokens: int
    weight: float = 1.0
    """How much its loss counts."""

    @property
    def completion_tokens(self) -> int:
        """Tokens that are trained on, the end of the turn among them."""
        return len(self.ids) - self.prompt_tokens


@dataclass(frozen=True)
class TokenRows:
    """What became of the records: the rows kept, and how many gave none, by why."""

    rows: tuple[TokenRow, ...]
    too_long: int
    longest: int
    """Tokens of the longest row, those left out included."""
    cut: int = 0
    """Records whose completion met its token limit."""
    unsuited: int = 0
    """Records that the method can't learn from."""

    @property
    def completion_tokens(self) -> int:
        """Tokens trained on in one epoch."""
        return sum(row.completion_tokens for row in self.rows)

    def left_out(self, max_length: int | None) -> str:
        """What was left out, and why, in words. None: no row is too long."""
        told = [] if max_length is None else [f"{self.too_long} longer than {max_length} tokens"]
        told += [f"{self.cut} cut off by their token limit"] if self.cut else []
        told += [f"{self.unsuited} that the method can't learn from"] if self.unsuited else []
        return f"{', '.join(told)} left out"


Padded = dict[str, Tensor]
"""`input_ids` [B, T] and `completion_mask` [B, T], true on the tokens to be learnt."""


def read_records(dataset: Path, split: Literal["train", "validation", "test"]) -> list[Record]:
    """The accepted rows of a dataset's split. A directory that isn't a dataset is BadInput."""
    try:
        return list(read_rows(dataset, split))
    except DatasetError as error:
        raise BadInput(
            f"{dataset} is not a dataset",
            f"{error}. Give the directory that a build published, or import your own rows.",
        ) from error


def encode(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    end_ids: frozenset[int],
) -> TokenRows:
    """Render records with the chat template and tokenize them; rows longer than max_length go.

    `end_ids` are the tokens that end a turn in generation. Raises BadInput where the template
    can't be used, or where no row is left.
    """
    _check_template(tokenizer)
    rows: list[TokenRow] = []
    for start in range(0, len(records), RENDER_ROWS):
        rows += _encode_some(records[start : start + RENDER_ROWS], tokenizer, end_ids)
    return short_enough(rows, max_length)


def short_enough(rows: Sequence[TokenRow], max_length: int) -> TokenRows:
    """The rows of at most so many tokens; BadInput where there are rows, but none of them is."""
    kept = tuple(row for row in rows if len(row.ids) <= max_length)
    longest = max((len(row.ids) for row in rows), default=0)
    if rows and not kept:
        raise BadInput(
            "no row is short enough to train on",
            f"All {len(rows)} rows are longer than max_length {max_length} (the longest has "
            f"{longest} tokens). Raise optimization.max_length.",
        )
    return TokenRows(kept, too_long=len(rows) - len(kept), longest=longest)


def collate(rows: Sequence[TokenRow]) -> Padded:
    """Right-padded tensors. The mask goes by position, never by pad id: eos often is the pad."""
    longest = max(len(row.ids) for row in rows)
    input_ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.bool_)
    for index, row in enumerate(rows):
        input_ids[index, : len(row.ids)] = row.ids
        mask[index, row.prompt_tokens : len(row.ids)] = True
    return {"input_ids": torch.from_numpy(input_ids), "completion_mask": torch.from_numpy(mask)}


def render_prompts(
    prompts: Iterable[Sequence[Message]], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Token ids of prompts as a model is asked: up to where its answer begins. For prompts that are
    no dataset rows': those have functions, too."""
    _check_template(tokenizer)
    texts = [_render(tokenizer, prompt, (), "the prompt") for prompt in prompts]
    return _token_ids(tokenizer, texts) if texts else []


def render_asked(records: Iterable[Record], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of rows' prompts as a model is asked, each with its functions: those that `encode`
    puts before what is learnt."""
    _check_template(tokenizer)
    texts = [_asked(record, tokenizer) for record in records]
    return _token_ids(tokenizer, texts) if texts else []


def show_row(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """A row as a person checks it: what is given, then what is learnt, token by token."""
    given = tokenizer.decode(row.ids[: row.prompt_tokens].tolist())
    learnt = tokenizer.convert_ids_to_tokens(row.ids[row.prompt_tokens :].tolist())
    return (
        f"row {row.row}: {row.prompt_tokens} tokens given, {row.completion_tokens} learnt\n"
        f"--- given ---\n{given}\n--- learnt ---\n{' | '.join(learnt)}"
    )


def _check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        raise BadInput(
            "the student's tokenizer has no chat template",
            "Without one, prompts can't be written as the student will be asked later. Save a "
            "chat_template.jinja beside its tokenizer files, or start from a chat model.",
        )


def _encode_some(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, end_ids: frozenset[int]
) -> list[TokenRow]:
    prompts, wholes = [], []
    for record in records:
        _check_completion(record)
        prompts.append(_asked(record, tokenizer))
        wholes.append(_asked(record, tokenizer, record.completion))
    pairs = zip(records, _token_ids(tokenizer, prompts), _token_ids(tokenizer, wholes), strict=True)
    return [_row(record.id, prompt, whole, tokenizer, end_ids) for record, prompt, whole in pairs]


def _check_completion(record: Record) -> None:
    roles = [message.role for message in record.completion]
    if not roles or set(roles) != {"assistant"}:
        raise BadInput(
            f"row {record.id} has a completion that no student can learn",
            f"A completion is assistant messages only; this one's roles are {roles}.",
        )


def _asked(
    record: Record, tokenizer: PreTrainedTokenizerBase, completion: Sequence[Message] = ()
) -> str:
    return _render(tokenizer, record.prompt, completion, f"row {record.id}", record.tools)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    completion: Sequence[Message],
    what: str,
    tools: str | None = None,
) -> str:
    """`tools`: the functions that the row's teacher could call, JSON."""
    messages = [template_turn(message) for message in (*prompt, *completion)]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tools=json.loads(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=not completion,
        )
    except BROKEN_TEMPLATE as error:
        told = str(error) or type(error).__name__
        raise BadInput(
            f"the chat template refuses {what}",
            f"{told}. Roles: {[message['role'] for message in messages]}. Change the prompts, "
            "or the student's chat template.",
        ) from error
    return str(text)


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The template has written every special token itself, so none is added."""
    encoded: Any = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _row(
    name: str,
    prompt: list[int],
    whole: list[int],
    tokenizer: PreTrainedTokenizerBase,
    end_ids: frozenset[int],
) -> TokenRow:
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise BadInput(
            f"the chat template writes row {name}'s prompt differently once it is answered",
            "The prompt with its generation prompt must be the beginning, token by token, of "
            "prompt and answer; otherwise what is trained is not what will be asked. It ends "
            f"{tokenizer.decode(prompt[-12:])!r} when asked and goes "
            f"{tokenizer.decode(whole[max(0, len(prompt) - 12) : len(prompt) + 4])!r} when "
            "answered. Mend the student's chat template.",
        )
    if not prompt:  # what predicts a row's first token lies in its prompt
        raise BadInput(
            f"row {name}'s prompt has no tokens",
            "Nothing stands before its completion, so the completion's first token can't be "
            "learnt. Give it a prompt, or take a chat template that writes a start or a role.",
        )
    ids = np.asarray(_until_end(whole, len(prompt), tokenizer, end_ids), dtype=np.int32)
    return TokenRow(name, ids, len(prompt))


def _until_end(
    whole: list[int], start: int, tokenizer: PreTrainedTokenizerBase, end_ids: frozenset[int]
) -> list[int]:
    """Cut what a template writes after the last end of turn: generation never gets there.

    A template that writes no end gets the tokenizer's, or the student would never stop.
    """
    for index in range(len(whole) - 1, start - 1, -1):
        if whole[index] in end_ids:
            return whole[: index + 1]
    if tokenizer.eos_token_id is None:
        raise BadInput(
            "nothing ends an answer",
            "The chat template writes no end of turn and the tokenizer has no eos token, so a "
            "student would never stop. Set the tokenizer's eos_token.",
        )
    return [*whole, tokenizer.eos_token_id]
