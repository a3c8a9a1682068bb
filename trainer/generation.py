"""Greedy answers in batches.

B rows of a batch, T tokens so far, V vocabulary.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.loading import NO_LIMIT


@dataclass(frozen=True)
class Answers:
    """One answer per prompt, in the prompts' order, the end token left out."""

    ids: tuple[tuple[int, ...], ...]
    ended: tuple[bool, ...]
    """Whether each came to its end token before the limit."""
    tokens: int
    """Tokens generated, end tokens included."""
    seconds: float
    prompt_tokens: int
    """Tokens of the prompts, padding left out."""
    prefill_seconds: float
    """Wall time of the prompts' own processing, each answer's first token with it."""

    @property
    def cut(self) -> int:
        """Answers that met the limit before their end."""
        return self.ended.count(False)

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens over wall time, prompts' own processing included."""
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens over the wall time of their processing."""
        return self.prompt_tokens / max(self.prefill_seconds, 1e-9)

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens behind each answer's first over the wall time they took; None without any."""
        behind = self.tokens - len(self.ids)
        return behind / max(self.seconds - self.prefill_seconds, 1e-9) if behind else None


def answer_greedily(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    end_ids: frozenset[int],
    max_length: int = NO_LIMIT,
) -> Answers:
    """The most likely token each time, until an end token, the limit, or where a prompt and its
    answer come to max_length tokens.

    Prompts of like length go together, padded on the left; rows that ended leave the batch.
    """
    started, prefill_seconds = time.monotonic(), 0.0
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), batch_size):
        chosen = by_length[start : start + batch_size]
        given = [prompts[i] for i in chosen]
        rooms = [min(max_new_tokens, max_length - len(prompt)) for prompt in given]
        made, first = _answer_batch(model, given, rooms, end_ids)
        prefill_seconds += first
        for index, answer in zip(chosen, made, strict=True):
            answers[index] = answer
    seconds = time.monotonic() - started
    ended = tuple(bool(answer) and answer[-1] in end_ids for answer in answers)
    ids = tuple(tuple(a[:-1] if e else a) for a, e in zip(answers, ended, strict=True))
    return Answers(
        ids,
        ended,
        tokens=sum(map(len, answers)),
        seconds=seconds,
        prompt_tokens=sum(map(len, prompts)),
        prefill_seconds=prefill_seconds,
    )


@torch.no_grad()  # not inference mode: a student in training goes on with what it caches here
def _answer_batch(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    rooms: list[int],
    end_ids: frozenset[int],
) -> tuple[list[list[int]], float]:
    """The answers, each of at most its room's tokens, and the seconds until each had its first."""
    started, first = time.monotonic(), 0.0
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    step_ids, mask = left_padded(prompts, model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    for step in range(max(rooms)):
        logits = model(
            input_ids=step_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        chosen = logits.argmax(dim=-1).tolist()  # waits for the device
        if step == 0:
            first = time.monotonic() - started
        for row, token in zip(alive, chosen, strict=True):
            answers[row].append(token)
        going = [
            index
            for index, (row, token) in enumerate(zip(alive, chosen, strict=True))
            if token not in end_ids and len(answers[row]) < rooms[row]
        ]
        if not going:
            break
        picked = torch.tensor(going, device=model.device)
        if len(going) < len(alive):
            alive = [alive[index] for index in going]
            mask = mask[picked]
            pick_rows(cache, picked)
        step_ids = torch.tensor([[chosen[index]] for index in going], device=model.device)
        positions = positions[picked, -1:] + 1
        mask = torch.cat([mask, mask.new_ones((len(going), 1))], dim=1)
    return answers, first


def pick_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Keep these rows of a cache in their order, some perhaps several times. Every kind of layer
    can reorder; recurrent ones can't select or repeat."""
    cache.reorder_cache(rows)  # type: ignore[arg-type]  # any tensor of integers does


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """[B, T] token ids and [B, T] mask, prompts flush with the right edge."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
