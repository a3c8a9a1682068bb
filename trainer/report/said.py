"""Tables of what models said: a few held-out prompts, with the answers side by side."""

from trainer.compress.report import Answer, StageReport
from trainer.report.cells import Cell, label
from trainer.report.chain import SampledRow, Training
from trainer.report.grid import Table, grid

SAMPLE_CHARACTERS = 400
"""Of a longer prompt the end is shown, where the question stands; of an answer the beginning."""
SILENT = "it ended at once"


def samples_table(training: Training | None) -> Table:
    """Held-out prompts with the dataset's answer and the student's, early and late."""
    looks = training.samples if training is not None else ()
    shown = list(looks[:1] + looks[-1:]) if len(looks) > 1 else list(looks)
    heads = [f"student, step {look.step}" for look in shown]
    rows = (
        [
            label(_end(first.prompt)),
            label(_beginning(first.reference)),
            *(_answer(look.rows[place]) for look in shown),
        ]
        for place, first in enumerate(shown[0].rows if shown else ())
    )
    return grid("What the student said", ["prompt", "dataset's answer", *heads], rows)


def answers_table(stage: StageReport | None, name: str) -> Table:
    """Evaluation questions with the first model's answer and this one's; changed ones first."""
    found = sorted(stage.answers if stage else (), key=lambda one: not one.changed)
    rows = (
        [label(_end(one.prompt)), label(one.gold, "empty"), _judged(one.first), _judged(one.made)]
        for one in found
    )
    return grid(f"What {name} said", ["question", "gold", "first model", "this model"], rows)


def _answer(row: SampledRow) -> Cell:
    said = label(_beginning(row.student), SILENT)
    if row.ended:
        return said
    return said.model_copy(update={"why": "it met the limit of new tokens before its end"})


def _judged(answer: Answer) -> Cell:
    """All that was kept of it: the end of a chain of thought is what counts."""
    below = "right" if answer.right else "wrong"
    return label(answer.text, SILENT).model_copy(update={"below": below})


def _beginning(words: str) -> str:
    return words if len(words) <= SAMPLE_CHARACTERS else f"{words[:SAMPLE_CHARACTERS]} …"


def _end(words: str) -> str:
    return words if len(words) <= SAMPLE_CHARACTERS else f"… {words[-SAMPLE_CHARACTERS:]}"
