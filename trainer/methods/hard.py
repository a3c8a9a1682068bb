"""Cross-entropy with the tokens of completions: a teacher's text is all that is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from prompts.record import Message, Record
from prompts.template import compile_template
from trainer.batch import Batch
from trainer.data import TokenRow, TokenRows
from trainer.errors import BadInput
from trainer.methods.method import Encode, Setting
from trainer.objectives import cross_entropy_term
from trainer.spec import StepByStep
from trainer.student import Losses, Objective, Seen


def hard_targets(spec: Any, setting: Setting) -> Objective:
    """Cross-entropy needs nothing beside the student."""
    return Objective(cross_entropy_losses)


def cross_entropy_losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
    """Of all kept positions."""
    return Losses({"cross_entropy": (1.0, cross_entropy_term(targets))})


def two_tasks(spec: StepByStep, records: Sequence[Record], encode: Encode) -> TokenRows:
    """A label row and a rationale row of each record, of tasks that have a share.

    Weights make the loss label_share * (mean over label tokens) + (1 - label_share) * (mean over
    rationale tokens), the means over the dataset: within a batch there may be none of one sort.
    """
    shares = list(_trained(spec, records, encode))
    whole = sum(made.completion_tokens for _, made in shares)
    rows: list[TokenRow] = []
    for share, made in shares:
        factor = share * whole / max(1, made.completion_tokens)
        rows += [replace(row, weight=row.weight * factor) for row in made.rows]
    longest = max(made.longest for _, made in shares)
    return TokenRows(tuple(rows), sum(made.too_long for _, made in shares), longest)


def _trained(
    spec: StepByStep, records: Sequence[Record], encode: Encode
) -> Iterator[tuple[float, TokenRows]]:
    """Each task's share and rows. One without a share isn't even tokenized: that its rows are too
    long, or lack what they would ask for, is no matter."""
    if spec.label_share > 0:
        template = compile_template(spec.label_template)
        said = [template.render({"answer": row.answer or ""}) for row in records]
        asked = zip(records, said, strict=True)
        labels = [_asked(row, spec.label_prefix, label, "label") for row, label in asked]
        yield spec.label_share, encode(labels)
    if spec.label_share < 1:
        prefix = spec.rationale_prefix
        told = [_asked(row, prefix, row.reasoning or "", "rationale") for row in records]
        yield 1 - spec.label_share, encode(told)


def _asked(record: Record, prefix: str, answer: str, task: str) -> Record:
    """The record with a prefix before its last user message and another completion."""
    users = [i for i, message in enumerate(record.prompt) if message.role == "user"]
    if not users:
        raise BadInput(f"row {record.id} has no user message", "step_by_step asks in one.")
    prompt = list(record.prompt)
    last = prompt[users[-1]]
    prompt[users[-1]] = last.model_copy(update={"content": f"{prefix}{last.content}"})
    said = (Message(role="assistant", content=answer),)
    changed = {"prompt": tuple(prompt), "completion": said, "id": f"{record.id}#{task}"}
    return record.model_copy(update=changed)
