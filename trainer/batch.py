"""What one forward pass learns from: padded rows, or rows packed into shared sequences.

B sequences, T tokens of the longest, K kept positions: those that predict a token to be learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from trainer.data import TokenRow, collate


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass, and the rows that they were made of, in order: the kept
    positions of a batch are its rows' completion tokens one after the other."""

    rows: tuple[TokenRow, ...]
    input_ids: Tensor
    """[B, T]"""
    completion_mask: Tensor
    """[B, T], true on the tokens to be learnt."""
    segments: Tensor | None = None
    """[B, T] packed: which row of its sequence a token belongs to, from 1; 0 is padding."""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """[K] each: what a method knows of the kept positions."""
    share: Literal["main", "text"] = "main"
    """Which count of tokens its loss is divided by."""

    @property
    def kept(self) -> int:
        """K"""
        return int(self.completion_mask[:, 1:].sum())

    @property
    def weights(self) -> Tensor:
        """[K] the weights of the rows."""
        counted = [row.completion_tokens for row in self.rows]
        each = torch.tensor([row.weight for row in self.rows], device=self.input_ids.device)
        return each.repeat_interleave(torch.tensor(counted, device=each.device))[: self.kept]

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        segments = None if self.segments is None else self.segments.to(device)
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            completion_mask=self.completion_mask.to(device),
            segments=segments,
            columns={name: column.to(device) for name, column in self.columns.items()},
        )


def pad(rows: Sequence[TokenRow]) -> Batch:
    """One row a sequence, padded on the right."""
    tensors = collate(rows)
    return Batch(tuple(rows), tensors["input_ids"], tensors["completion_mask"])


def pack(rows: Sequence[TokenRow], max_length: int) -> Batch:
    """Rows share sequences of up to max_length tokens: the longest first, each into the first
    sequence that has room."""
    sequences: list[list[TokenRow]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        room = (s for s in sequences if sum(len(r.ids) for r in s) + len(row.ids) <= max_length)
        place = next(room, None)
        if place is None:
            sequences.append([row])
        else:
            place.append(row)
    return _packed(sequences)


def silence(batch: Batch) -> Batch:
    """The same tensors, of which no token counts: a rank without rows takes part with them."""
    return replace(batch, completion_mask=torch.zeros_like(batch.completion_mask))


def _packed(sequences: list[list[TokenRow]]) -> Batch:
    longest = max(sum(len(row.ids) for row in rows) for rows in sequences)
    input_ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    segments = torch.zeros_like(input_ids)
    for number, rows in enumerate(sequences):
        start = 0
        for index, row in enumerate(rows, start=1):
            end = start + len(row.ids)
            input_ids[number, start:end] = torch.from_numpy(row.ids.astype("int64"))
            mask[number, start + row.prompt_tokens : end] = True
            segments[number, start:end] = index
            start = end
    return Batch(tuple(row for rows in sequences for row in rows), input_ids, mask, segments)


def positions(segments: Tensor) -> Tensor:
    """[B, T] -> [B, T]: each token's place within its own row."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(begins, index, torch.zeros_like(index)).cummax(dim=1).values


def sees(segments: Tensor) -> Tensor:
    """[B, T] -> [B, T, T]: true where a token may look: at its own row, up to itself. Padding sees
    padding, so that no softmax is empty."""
    causal = torch.ones(segments.shape[1], segments.shape[1], device=segments.device).tril().bool()
    return (segments[:, :, None] == segments[:, None, :]) & causal
