"""What a student answers to a few held-out prompts as it learns, beside the dataset's answers."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from trainer.data import TokenRow
from trainer.generation import Answers, answer_greedily
from trainer.loading import end_ids
from trainer.preparation import Prepared
from trainer.student import Student, Wrapped, gathered

TEXT_CHARACTERS = 2000
"""Of a longer text its beginning and its end are shown."""
MEASUREMENTS = 20
"""That a finished model's `samples.json` keeps, evenly thinned."""


@dataclass(frozen=True)
class Sampler:
    """The same prompts each time, answered greedily: what differs is the student."""

    rows: tuple[TokenRow, ...]
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    max_new_tokens: int
    max_length: int
    """Tokens of a prompt and its answer together."""

    def ask(self, student: Wrapped) -> list[dict[str, Any]]:
        """A dict for each row: id, prompt, reference (the dataset's answer), student, ended.

        To be called on every rank: all give the same answers in as many forwards.
        """
        made: Answers = student(self._answers)
        answered = zip(self.rows, made.ids, made.ended, strict=True)
        return [self._told(row, ids, ended) for row, ids, ended in answered]

    @torch.no_grad()
    def _answers(self, student: Student) -> Answers:
        student.model.eval()
        prompts = [row.ids[: row.prompt_tokens].tolist() for row in self.rows]
        with gathered(student.model):
            return answer_greedily(
                student.model,
                prompts,
                self.max_new_tokens,
                len(prompts),
                self.end_ids,
                self.max_length,
            )

    def _told(self, row: TokenRow, ids: tuple[int, ...], ended: bool) -> dict[str, Any]:
        return {
            "id": row.row,
            "prompt": self._text(row.ids[: row.prompt_tokens].tolist()),
            "reference": self._text(row.ids[row.prompt_tokens :].tolist()),
            "student": self._text(list(ids)),
            "ended": ended,
        }

    def _text(self, ids: list[int]) -> str:
        return clipped(str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip())


def make_sampler(run: Prepared) -> Sampler | None:
    """Of validation rows spread over the split; None where there are none, or none are wanted."""
    held, wanted = run.validation.rows, run.spec.optimization.sample_rows
    count = min(wanted, len(held))
    if count == 0:
        return None
    rows = tuple(held[i * len(held) // count] for i in range(count))
    ends, most = end_ids(run.model, run.tokenizer), run.spec.optimization.sample_tokens
    return Sampler(rows, run.tokenizer, ends, most, run.max_length)


def clipped(text: str, characters: int = TEXT_CHARACTERS) -> str:
    """The text, or its beginning and its end with a mark between."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[:half]} … {text[-half:]}"


def thinned(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most MEASUREMENTS of them, the first and the last among them."""
    count = len(measurements)
    if count <= MEASUREMENTS:
        return measurements
    kept = (round(i * (count - 1) / (MEASUREMENTS - 1)) for i in range(MEASUREMENTS))
    return [measurements[number] for number in kept]
