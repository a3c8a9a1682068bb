"""What a teacher in process thinks of completions that are there already.

B rows, T tokens of the longest, P positions of one row, V vocabulary, n draws, k likeliest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.device import training_device
from trainer.drawing import inverted
from trainer.loading import load_model
from trainer.objectives import Head
from trainer.student import check_head, head_of, last_hidden

LOGITS = 2**24
"""P x V of what is looked at together, at most: 128 MiB in double precision."""


@dataclass(frozen=True)
class Scored:
    """Token ids of a row, those from `start` on to be scored."""

    ids: tuple[int, ...]
    start: int
    seed: int
    """Of the row's own random numbers: what is drawn depends on nothing else that is asked."""


@dataclass(frozen=True)
class Thoughts:
    """Of each scored token: entries, and what each says."""

    ids: list[list[int]]
    """[P, k or n]"""
    values: list[list[float]]
    """[P, k] log-probs, likeliest first; [P, n] importance weights."""
    own: list[float]
    """[P] log-probs of the row's own tokens."""


Look = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(log-probs [P, V], the row's random numbers) -> ids and values, [P, k or n] each."""


def load_scorer(directory: Path) -> PreTrainedModel:
    """A teacher on this process's device, in the type it was saved in; on a CPU in fp32, where
    16 bits save no time and logits would be rounded to eighths. Raises BadInput."""
    device = training_device()
    model = load_model(directory, torch.float32 if device.type == "cpu" else None)
    check_head(model)
    model.requires_grad_(False)
    model.to(device)  # type: ignore[arg-type]  # its stub knows no device
    return model


@torch.no_grad()
def likeliest(model: PreTrainedModel, rows: Sequence[Scored], top_k: int) -> list[Thoughts]:
    """The k likeliest tokens at each scored place."""

    def look(logprobs: Tensor, _: torch.Generator) -> tuple[Tensor, Tensor]:
        best = logprobs.topk(top_k, dim=-1)
        return best.indices, best.values

    return _each(model, rows, look)


@torch.no_grad()
def drawn(model: PreTrainedModel, rows: Sequence[Scored], draws: int) -> list[Thoughts]:
    """Independent draws from the teacher's own distribution at each scored place: weights p / (n q)
    with q = p are 1 / n each (arXiv:2503.16870)."""

    def look(logprobs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        ids = draw(logprobs, draws, generator)
        return ids, torch.full(ids.shape, 1 / draws)

    return _each(model, rows, look)


def draw(logprobs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """logprobs [P, V] -> ids [P, n], by inverting the distribution function.

    The random numbers come from the CPU, so that a GPU draws the same.
    """
    chances = torch.rand(len(logprobs), draws, dtype=torch.float64, generator=generator)
    return inverted(logprobs, chances.to(logprobs.device))


def _each(model: PreTrainedModel, rows: Sequence[Scored], look: Look) -> list[Thoughts]:
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
    hidden, head = last_hidden(model, ids.to(model.device)), head_of(model)
    return [_read(head, row, found, look) for row, found in zip(rows, hidden, strict=True)]


def _read(head: Head, row: Scored, hidden: Tensor, look: Look) -> Thoughts:
    """`hidden` [T, D]: position t foretells token t + 1."""
    before = hidden[row.start - 1 : len(row.ids) - 1]
    own = torch.tensor(row.ids[row.start :], device=hidden.device).unsqueeze(1)
    generator = torch.Generator().manual_seed(row.seed)
    found = Thoughts([], [], [])
    width = max(1, LOGITS // len(head.weight))
    for first in range(0, len(before), width):
        part = slice(first, first + width)
        logprobs = head.logits(before[part]).double().log_softmax(dim=-1)
        ids, values = look(logprobs, generator)
        found.ids.extend(ids.tolist())
        found.values.extend(values.tolist())
        found.own.extend(logprobs.gather(-1, own[part]).squeeze(1).tolist())
    return found
