"""A few questions' answers through a chain: the gold one, the first model's and each stage's."""

from collections.abc import Sequence

from trainer.compress.report import Answer, SideBySide
from trainer.evaluate import Answered
from trainer.samples import clipped

QUESTIONS = 5
"""Whose answers are kept, at most."""
CHARACTERS = 500
"""Of a longer text its beginning and its end are kept."""


def chosen(answered: Sequence[Answered]) -> tuple[SideBySide, ...]:
    """A model's answers to the same few questions each time, evenly spread; beside themselves."""
    count = min(QUESTIONS, len(answered))
    return tuple(_told(answered[index * len(answered) // count]) for index in range(count))


def beside_first(first: Sequence[SideBySide], made: Sequence[SideBySide]) -> tuple[SideBySide, ...]:
    """The answers of `made` beside the chain's first model's, where those are known."""
    known = {(one.id, one.prompt, one.gold): one.first for one in first}
    pairs = ((one, known.get((one.id, one.prompt, one.gold))) for one in made)
    return tuple(one.model_copy(update={"first": said}) for one, said in pairs if said is not None)


def _told(one: Answered) -> SideBySide:
    said = Answer(text=clipped(one.text.strip(), CHARACTERS), right=one.right)
    return SideBySide(
        id=one.row.id,
        prompt=clipped(one.row.prompt[-1].content, CHARACTERS),
        gold=clipped(one.row.answer, CHARACTERS),
        first=said,
        made=said,
    )
