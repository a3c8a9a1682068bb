"""Universal logit distillation: a teacher with another tokenizer (arXiv:2402.12030)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts.record import Record
from trainer.batch import Batch, pad
from trainer.data import TokenRow, encode
from trainer.errors import BadInput
from trainer.loading import end_ids, held_tokens, load_tokenizer
from trainer.methods.hard import cross_entropy_losses
from trainer.methods.method import Setting
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
    held = held_tokens(teacher.model)
    pairs = _pairs(setting, tokenizer, end_ids(teacher.model, tokenizer), held)

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
    a token that begins within a character: behind some of its bytes there is no text yet."""
    lengths = _lengths(row.ids[row.prompt_tokens :].tolist(), tokenizer)
    return [min(length, len(content.strip())) for length in lengths]


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
    setting: Setting, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int], held: int | None
) -> dict[str, _Pair]:
    records = {record.id: record for record in setting.records}
    chosen = [records[row.row] for row in setting.rows]
    made = {row.row: row for row in encode(chosen, tokenizer, 2**31, ends).rows}
    _check_lengths(made, held)
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


def _check_lengths(made: dict[str, TokenRow], held: int | None) -> None:
    """Rows may be longer in the teacher's tokens than in the student's."""
    long = [row.row for row in made.values() if held is not None and len(row.ids) > held]
    if long:
        raise BadInput(
            f"{len(long)} of {len(made)} rows are longer than the teacher holds, in its tokens",
            f"It holds {held}; the first such row is {long[0]}. Lower optimization.max_length: "
            "longer rows are left out and counted.",
        )


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
