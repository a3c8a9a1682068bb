"""What a method is: functions of its spec, one after the other."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from trainer.data import TokenRow, TokenRows
from trainer.events import Emit
from trainer.plan import Layout
from trainer.student import Objective

Encode = Callable[[Sequence[Record]], TokenRows]
"""Rendered with the student's template, tokenized; too long ones left out and counted."""


@dataclass(frozen=True)
class Setting:
    """What a method finds when it makes its objective."""

    model: PreTrainedModel
    """The student's."""
    tokenizer: PreTrainedTokenizerBase
    rows: tuple[TokenRow, ...]
    """The training rows."""
    records: Sequence[Record]
    """What they were made of, by the same ids."""
    end_ids: frozenset[int]
    max_length: int
    batch_size: int
    lay: Layout
    """How rows become a batch: padded or packed."""
    closing: ExitStack
    """What ends with the run."""
    emit: Emit


def encode_all(spec: Any, records: Sequence[Record], encode: Encode) -> TokenRows:
    """Every record as one row."""
    return encode(records)


@dataclass(frozen=True)
class Fitting:
    """What a method's own material has to fit, before any weights are read."""

    rows: tuple[TokenRow, ...]
    """Training and validation rows."""
    tokenizer: PreTrainedTokenizerBase
    shape: PreTrainedModel
    """The student's outline."""


def check_nothing(spec: Any, fitting: Fitting) -> None:
    """Most methods have nothing beside rows and models."""


@dataclass(frozen=True)
class Method:
    """One method, from records to the loss."""

    select: Callable[[Any, Sequence[Record]], list[Record]]
    """(its spec, records) -> those it learns from; BadInput where the dataset lacks what it
    needs. Called before any model is loaded."""
    objective: Callable[[Any, Setting], Objective]
    """Loads what it needs; BadInput where that doesn't fit the student."""
    rows: Callable[[Any, Sequence[Record], Encode], TokenRows] = encode_all
    """(its spec, what `select` gave, encode) -> training rows."""
    check: Callable[[Any, Fitting], None] = check_nothing
    """BadInput where a signal or a text isn't there or isn't of these rows; reads no weights."""
