"""Cross-entropy with the tokens of completions: a teacher's text is all that is needed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from prompts.record import Message, Record
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
    """A label row and a rationale row of each record.

    Weights make the loss label_share * (mean over label tokens) + (1 - label_share) * (mean over
    rationale tokens), the means over the dataset: within a batch there may be none of one sort.
    """
    labels = encode([_asked(row, spec.label_prefix, row.answer or "", "label") for row in records])
    rationales = encode(
        [_asked(row, spec.rationale_prefix, row.reasoning or "", "rationale") for row in records]
    )
    tasks = ((labels, spec.label_share), (rationales, 1 - spec.label_share))
    shares = [(made, share) for made, share in tasks if share > 0]
    whole = sum(made.completion_tokens for made, _ in shares)
    rows: list[TokenRow] = []
    for made, share in shares:
        factor = share * whole / max(1, made.completion_tokens)
        rows += [replace(row, weight=row.weight * factor) for row in made.rows]
    longest = max(labels.longest, rationales.longest)
    return TokenRows(tuple(rows), labels.too_long + rationales.too_long, longest)


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
