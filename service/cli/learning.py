"""What a training tells of a step or a measurement, in words."""

from collections.abc import Mapping
from typing import Any

KNOWN = frozenset(
    {"event", "step", "steps", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_s"}
)
"""Fields of a `step` event that are no term of its loss."""
PROMPT_CHARACTERS, ANSWER_CHARACTERS = 60, 120


def terms(data: Mapping[str, Any]) -> list[str]:
    """Each term of the loss per token, the student's entropy, and the gradient's norm."""
    told = {name: value for name, value in data.items() if name not in KNOWN}
    told |= {"gradient norm": data["grad_norm"]} if "grad_norm" in data else {}
    return [f"{name} {figure(value)}" for name, value in told.items() if _is_figure(value)]


def validation(data: Mapping[str, Any]) -> str:
    """A measurement of the validation rows."""
    loss = f"step {data.get('step')}: validation loss {figure(data.get('loss'))}"
    return ", ".join([loss, *terms(data)])


def sample(data: Mapping[str, Any]) -> str | None:
    """The first held-out prompt of a measurement, the same each time, and both answers to it."""
    if not data.get("rows"):
        return None
    row = data["rows"][0]
    prompt, reference = _end(row["prompt"]), _beginning(row["reference"])
    answer = _beginning(row["student"])
    return f"step {data['step']}: to {prompt!r} it answers {answer!r}, the dataset {reference!r}"


def figure(value: float | None) -> str:
    """The trainer tells a number that isn't finite as null."""
    return "not finite" if value is None else f"{value:.4f}"


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _end(text: str) -> str:
    """Of a prompt, where its question stands."""
    words = " ".join(text.split())
    return words if len(words) <= PROMPT_CHARACTERS else f"… {words[-PROMPT_CHARACTERS:].strip()}"


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= ANSWER_CHARACTERS else f"{words[:ANSWER_CHARACTERS].strip()} …"
