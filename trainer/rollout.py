"""Answers drawn at random, from the student or from student and teacher together.

B rows that go on, V vocabulary, T tokens of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.data import TokenRow
from trainer.drawing import inverted
from trainer.generation import left_padded, pick_rows
from trainer.loading import NO_LIMIT
from trainer.objectives import tempered


@dataclass(frozen=True)
class Sample:
    """One answer, its end token included where it came."""

    prompt: int
    """Which of the prompts it answers."""
    ids: list[int]
    drawn_from: list[float]
    """[T] log-probability of each token under the distribution that it was drawn from."""
    student: list[float]
    """[T] under the student's own."""
    teacher: list[float]
    """[T] under the teacher's; empty without one."""


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn."""

    max_new_tokens: int
    temperature: float = 1.0
    samples: int = 1
    """Answers to each prompt; the prompt is processed once for all."""
    teacher_mix: float = 0.0
    """Share of the teacher's distribution, at every token (arXiv:2306.08543, section 2.2)."""
    max_length: int = NO_LIMIT
    """Tokens of a prompt and its answer together."""
    known: int = NO_LIMIT
    """No id from this one on is drawn: heads may have more rows than there are tokens."""

    def room(self, prompt_tokens: int) -> int:
        """New tokens that an answer to such a prompt may have."""
        return min(self.max_new_tokens, self.max_length - prompt_tokens)


@torch.no_grad()
def draw(
    student: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    drawing: Drawing,
    end_ids: frozenset[int],
    chances: Tensor,
    teacher: PreTrainedModel | None = None,
) -> list[Sample]:
    """Answers to all prompts, in their order.

    chances [B, T], even between 0 and 1 in fp64: of each answer's each token, so that what is
    drawn depends on nothing but the answer's own, whoever is drawn beside it. Rows that ended leave
    the batch. With a teacher its log-probabilities come along, from the same pass that mixes it in;
    both models must have one vocabulary.
    """
    runs = [_Run(model, prompts, drawing.samples) for model in (student, teacher) if model]
    made = [Sample(i, [], [], [], []) for i in range(len(prompts)) for _ in range(drawing.samples)]
    rooms = [drawing.room(len(prompts[one.prompt])) for one in made]
    alive = list(range(len(made)))
    chances = chances.to(student.device)
    for place in range(drawing.max_new_tokens):
        logprobs = [tempered(run.logits(), drawing.temperature) for run in runs]
        size = min(drawing.known, *(one.shape[-1] for one in logprobs))
        each = [one[:, :size] for one in logprobs]
        mixture = _mixture(each, drawing.teacher_mix)
        if any(size < one.shape[-1] for one in logprobs):
            mixture = mixture.log_softmax(-1)  # the shares of what can be drawn
        chosen = inverted(mixture, chances[alive, place, None])
        _note(made, alive, chosen, mixture, each)
        tokens = chosen.squeeze(1).tolist()
        going = [
            number
            for number, (row, token) in enumerate(zip(alive, tokens, strict=True))
            if token not in end_ids and len(made[row].ids) < rooms[row]
        ]
        if not going:
            break
        alive = [alive[row] for row in going]
        for run in runs:
            run.feed(going, [tokens[row] for row in going])
    return made


def answered(prompt: TokenRow, ids: Sequence[int]) -> TokenRow:
    """The prompt of a row with another answer. The mask ends where the answer does, which is its
    first end token: nothing is ever masked by its pad id."""
    given = prompt.ids[: prompt.prompt_tokens]
    joined: NDArray[np.int32] = np.concatenate([given, np.asarray(ids, dtype=np.int32)])
    return TokenRow(prompt.row, joined, prompt.prompt_tokens, prompt.weight)


class _Run:
    """One model's cache over the rows that go on."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int
    ) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        ids, self._mask = left_padded([list(prompt) for prompt in prompts], model.device)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._last = self._step(ids)
        if samples > 1:
            each = torch.arange(len(prompts), device=model.device)
            pick_rows(self._cache, each.repeat_interleave(samples))
            tensors = (self._mask, self._positions, self._last)
            self._mask, self._positions, self._last = (
                tensor.repeat_interleave(samples, dim=0) for tensor in tensors
            )

    def logits(self) -> Tensor:
        """[B, V] of the next token."""
        return self._last

    def feed(self, going: list[int], tokens: list[int]) -> None:
        """Drop the rows that ended, and take a token for each that goes on."""
        picked = torch.tensor(going, device=self._mask.device)
        if len(going) < len(self._mask):
            pick_rows(self._cache, picked)
        self._mask = self._mask[picked]
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(going), 1))], dim=1)
        self._positions = self._positions[picked, -1:] + 1
        self._last = self._step(torch.tensor(tokens, device=self._mask.device).unsqueeze(1))

    def _step(self, ids: Tensor) -> Tensor:
        logits: Tensor = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits


def _mixture(logprobs: list[Tensor], teacher_mix: float) -> Tensor:
    """log((1 - a) q + a p), [B, V]"""
    if teacher_mix == 0:
        return logprobs[0]
    student, teacher = (one.exp() for one in logprobs)
    return ((1 - teacher_mix) * student + teacher_mix * teacher).log()


def _note(
    made: list[Sample], alive: list[int], chosen: Tensor, mixture: Tensor, each: list[Tensor]
) -> None:
    values = [one.gather(1, chosen).squeeze(1).tolist() for one in (mixture, *each)]
    for place, row in enumerate(alive):
        made[row].ids.append(int(chosen[place, 0]))
        made[row].drawn_from.append(values[0][place])
        made[row].student.append(values[1][place])
        if len(values) > 2:
            made[row].teacher.append(values[2][place])
