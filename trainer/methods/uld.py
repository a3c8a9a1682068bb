"""Universal logit distillation: a teacher with another tokenizer (arXiv:2402.12030)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts.record import Record
from trainer.batch import Batch, pad
from trainer.data import TokenRow, TokenRows
from trainer.data import encode as tokenized
from trainer.errors import BadInput
from trainer.loading import NO_LIMIT, end_ids, held_tokens, load_tokenizer, outline
from trainer.methods.hard import cross_entropy_losses
from trainer.methods.method import Encode, Setting
from trainer.methods.teacher import load_teacher
from trainer.objectives.sorted_distance import sorted_distance_term
from trainer.spec import UniversalLogit
from trainer.student import Losses, Objective, Seen


@dataclass(frozen=True)
class _Pair:
    """A row as the teacher writes it, and where both stand behind the same text."""

    row: TokenRow
    places: list[int]
    """For each completion token of the student's, the teacher's that begins at the same
    character; -1 where none does."""


def uld(spec: UniversalLogit, setting: Setting) -> Objective:
    """Cross-entropy plus `weight` times the distance of sorted probabilities."""
    teacher = load_teacher(spec, setting)
    tokenizer = load_tokenizer(spec.teacher)
    pairs = _pairs(setting, tokenizer, end_ids(teacher.model, tokenizer))

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        found = [pairs[row.row] for row in batch.rows] if batch.kept else []
        # Of no row the teacher is asked nothing: the batch's tokens are the student's alone.
        asked = pad([pair.row for pair in found or list(pairs.values())[:1]])
        kept = teacher.kept(asked.to(batch.input_ids.device))[: None if found else 0]
        places = torch.tensor(_joined(found), dtype=torch.long, device=kept.device)
        distance = sorted_distance_term(kept, teacher.head, places, spec.kd_temperature)
        terms = dict(cross_entropy_losses(seen, targets, batch).terms)
        terms["sorted_distance"] = (spec.weight, distance)
        return Losses(terms)

    return Objective(losses)


def rows_for_both(spec: UniversalLogit, records: Sequence[Record], encode: Encode) -> TokenRows:
    """The rows that the teacher holds too: they may be longer in its tokens. Those left out are
    counted with the ones that are too long in the student's; BadInput where none is left."""
    ours = encode(records)
    teacher, tokenizer = outline(spec.teacher), load_tokenizer(spec.teacher)
    held = held_tokens(teacher)
    if held is None:
        return ours
    chosen = {row.row for row in ours.rows}
    kept = [record for record in records if record.id in chosen]
    theirs = tokenized(kept, tokenizer, NO_LIMIT, end_ids(teacher, tokenizer))
    fits = {row.row for row in theirs.rows if len(row.ids) <= held}
    if ours.rows and not fits:
        raise BadInput(
            "no row is short enough for the teacher",
            f"It holds {held}, and all {len(ours.rows)} rows that fit the student have more of the "
            f"teacher's own tokens (up to {theirs.longest}). Take shorter rows or another teacher.",
        )
    rows = tuple(row for row in ours.rows if row.row in fits)
    return replace(ours, rows=rows, too_long=ours.too_long + len(ours.rows) - len(rows))


def aligned(ours: list[int], theirs: list[int]) -> list[int]:
    """For each token the number of the other side's that begins at the same character, or -1.

    Positions are beginnings of tokens, -1 of those that begin within a character. Elsewhere the
    same text lies behind both models, so their next-token distributions say something about the
    same thing.
    """
    begins = {place: number for number, place in reversed(list(enumerate(theirs))) if place >= 0}
    return [begins.pop(place, -1) for place in ours]


def beginnings(row: TokenRow, content: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Where each completion token begins in the answer's text, in characters; the end token
    begins at its length. Special tokens and white space before the answer begin before it. -1 for
    a token that begins within a character: behind some of its bytes there is no text yet; and for
    those of what a template or earlier turns say before the answer, which is no part of it."""
    ids, answer = row.ids[row.prompt_tokens :].tolist(), content.strip()
    lengths = _lengths(ids, tokenizer)
    said = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
    start = max(0, said.rfind(answer)) if answer else 0
    before = len(said[:start].rstrip())
    ends = [*lengths[1:], len(said) + 1]
    return [
        -1
        if length < before or (start and 0 <= end <= before)
        else min(max(0, length - start), len(answer))
        for length, end in zip(lengths, ends, strict=True)
    ]


def _lengths(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Characters that stand before each token, white space around them aside; -1 where the last of
    them isn't whole. Only the last whole characters are decoded anew for each, or a long answer
    would take quadratically long; where that doesn't come to the same text, all of it is."""

    def decoded(first: int, end: int) -> str:
        return str(tokenizer.decode(ids[first:end], skip_special_tokens=True))

    lengths, before, whole, first, read = list[int](), "", "", 0, 0
    for number in range(len(ids)):
        window = decoded(first, number)
        before = whole + window[len(decoded(first, read)) :]
        lengths.append(_length(before))
        if not window.endswith("\ufffd"):  # a character's bytes are all there
            whole, first, read = before, read, number
    if before != decoded(0, max(0, len(ids) - 1)):
        return [_length(decoded(0, number)) for number in range(len(ids))]
    return lengths


def _length(text: str) -> int:
    """Tokenizers of bytes write what isn't a whole character yet as U+FFFD."""
    return -1 if text.endswith("\ufffd") else len(text.strip())


def _pairs(
    setting: Setting, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]
) -> dict[str, _Pair]:
    records = {record.id: record for record in setting.records}
    chosen = [records[row.row] for row in setting.rows]
    made = {row.row: row for row in tokenized(chosen, tokenizer, NO_LIMIT, ends).rows}
    found = {}
    for row in setting.rows:
        text = _text(records[row.row])
        ours = beginnings(row, text, setting.tokenizer)
        theirs = beginnings(made[row.row], text, tokenizer)
        found[row.row] = _Pair(made[row.row], aligned(ours, theirs))
    if not any(place >= 0 for pair in found.values() for place in pair.places):
        raise BadInput(
            "student and teacher share no place in any answer",
            "Their tokenizers never begin a token at the same character. Use sequence_level.",
        )
    return found


def _text(record: Record) -> str:
    last: Any = record.completion[-1].content
    return str(last)


def _joined(pairs: list[_Pair]) -> list[int]:
    """Places over a whole batch: each row's begin where the teacher's rows before it end."""
    counts = np.cumsum([0, *(pair.row.completion_tokens for pair in pairs)])
    return [
        int(start) + place if place >= 0 else -1
        for start, pair in zip(counts, pairs, strict=False)
        for place in pair.places
    ]
