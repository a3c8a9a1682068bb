"""What the methods' steps share: their numbers in the ledger, and how they end early."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prompts.plan import REFUSED, Plan, Request
from prompts.plan.seeds import seeded
from prompts.record import Call, Message, Reason, Record, Rejected, Seed
from prompts.spec.sampling import Sampling

WRITING = 1000
"""The first step of those that write an instruction; the plan's own steps are below."""

Calls = Mapping[int, Call]
"""A row's writing calls by step."""


def writing_calls(calls: Sequence[Call]) -> dict[int, Call]:
    """A row's calls of the writing steps, by step."""
    return {call.step: call for call in calls if call.step >= WRITING}


def ask(plan: Plan, seed: Seed, step: int, text: str, sampling: Sampling) -> tuple[Request, ...]:
    """One request of a writing step."""
    message = Message(role="user", content=text)
    own = seeded(sampling, seed["id"], step)
    return (Request(seed["id"], step, 0, (message,), own, plan.teacher.name),)


def refused(call: Call) -> bool:
    """Whether the server refused a writing step for good."""
    return call.finish_reason == REFUSED


def reject(
    plan: Plan,
    seed: Seed,
    calls: Sequence[Call],
    reason: Reason,
    detail: str,
    like: str | None = None,
) -> Rejected:
    """The end of a row that never came to its answer."""
    row = plan.not_needed(seed, "cancelled", calls)
    changes: dict[str, Any] = {"end": "rejected", "reason": reason.value, "detail": detail}
    return row.model_copy(update=changes | {"resembles": like})


def as_task(seed: Seed, instruction: str, given: str | None = None) -> Seed:
    """A slot's row as the plan answers it, and as its record keeps it."""
    task = {"id": seed["id"], "instruction": instruction, "round": seed["round"]}
    return task | ({"input": given} if given else {})


def unwritten(row: Rejected, seed: Seed) -> Rejected:
    """A reject without a task: its seed is the slot, and it was asked no prompt."""
    return row.model_copy(update={"seed": json.dumps(seed), "prompt": ()})


def own_calls(calls: Sequence[Call]) -> list[Call]:
    """The calls that belong to the plan itself: the answer's."""
    return [call for call in calls if call.step < WRITING]


def with_usage(ended: Record | Rejected, calls: Sequence[Call]) -> Record | Rejected:
    """The row with the tokens of all its calls, the writing ones too."""
    usage = ended.usage.model_copy(
        update={
            "prompt_tokens": sum(call.prompt_tokens for call in calls),
            "completion_tokens": sum(call.completion_tokens for call in calls),
        }
    )
    return ended.model_copy(update={"usage": usage})
