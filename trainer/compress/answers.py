"""What the models of a chain say: to the dataset's own prompts, and a few answers side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from prompts.verify import Verifier
from trainer.beside import texts_of
from trainer.compress.report import Answer, RowAnswers, SideBySide
from trainer.data import TokenRow
from trainer.device import at_work
from trainer.evaluate import Answered
from trainer.generation import answer_greedily
from trainer.judging import Checks, Judged, judge
from trainer.loading import NO_LIMIT, end_ids, held_tokens
from trainer.memory import model_peak, restart_peak
from trainer.samples import clipped

RESAMPLES = 2000
"""Of an interval; seeded, so that the same rows give the same ends."""
QUESTIONS = 5
"""Whose answers are kept, at most."""
CHARACTERS = 500
"""Of a longer text its beginning and its end are kept."""


@dataclass(frozen=True)
class AskedRows:
    """Rows of the dataset whose prompts each model of a chain answers."""

    rows: tuple[TokenRow, ...]
    records: tuple[Record, ...]
    """The same rows, in the same order."""
    checks: Checks
    verifier: Verifier | None
    why: str
    """Why there is no verifier."""
    batch_size: int

    @property
    def max_new_tokens(self) -> int:
        """As many as the longest of their completions has."""
        return max(row.completion_tokens for row in self.rows)


def answer_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: AskedRows
) -> tuple[RowAnswers, tuple[SideBySide, ...]]:
    """A model's answers, made once for all figures, and a few of them beside themselves."""
    prompts = [row.ids[: row.prompt_tokens].tolist() for row in asked.rows]
    ends, held = end_ids(model, tokenizer), held_tokens(model) or NO_LIMIT
    with at_work(model):
        resting = restart_peak(model.device)
        said = answer_greedily(model, prompts, asked.max_new_tokens, asked.batch_size, ends, held)
        peak, texts = model_peak(model, resting, model.device), texts_of(said, tokenizer)
    judged = judge(asked.records, texts, asked.checks, asked.verifier, RESAMPLES)
    figures = RowAnswers(
        rows=len(prompts),
        exact_match=judged.exact_match,
        rouge_l=judged.rouge_l,
        accuracy=judged.accuracy,
        verifier=asked.checks.spec.kind if judged.accuracy else None,
        why=asked.why or judged.why,
        uncompared=judged.uncompared,
        max_new_tokens=asked.max_new_tokens,
        cut=said.cut,
        tokens_per_s=said.tokens_per_s,
        prefill_tokens_per_s=said.prefill_tokens_per_s,
        decode_tokens_per_s=said.decode_tokens_per_s,
        peak_memory_bytes=peak,
    )
    return figures, _beside_rows(asked, texts, judged)


def chosen(answered: Sequence[Answered]) -> tuple[SideBySide, ...]:
    """A model's answers to the same few questions each time, evenly spread; beside themselves."""
    return tuple(
        _told(one.row.id, one.row.prompt[-1].content, one.row.answer, one.text.strip(), one.right)
        for one in (answered[place] for place in _places(len(answered)))
    )


def _beside_rows(asked: AskedRows, texts: Sequence[str], judged: Judged) -> tuple[SideBySide, ...]:
    return tuple(
        _told(
            asked.records[place].id,
            asked.records[place].prompt[-1].content,
            asked.records[place].completion[-1].content.strip(),
            texts[place],
            judged.right[place],
        )
        for place in _places(len(texts))
    )


def _places(answered: int) -> list[int]:
    count = min(QUESTIONS, answered)
    return [index * answered // count for index in range(count)]


def beside_first(first: Sequence[SideBySide], made: Sequence[SideBySide]) -> tuple[SideBySide, ...]:
    """The answers of `made` beside the chain's first model's, where those are known."""
    known = {(one.id, one.prompt, one.gold): one.first for one in first}
    pairs = ((one, known.get((one.id, one.prompt, one.gold))) for one in made)
    return tuple(one.model_copy(update={"first": said}) for one, said in pairs if said is not None)


def _told(name: str, prompt: str, gold: str, text: str, right: bool) -> SideBySide:
    said = Answer(text=clipped(text, CHARACTERS), right=right)
    return SideBySide(
        id=name,
        prompt=clipped(prompt, CHARACTERS),
        gold=clipped(gold, CHARACTERS),
        first=said,
        made=said,
    )
