"""Whether a budget can be counted with what is known of a build's teachers."""

from collections.abc import Sequence

from prompts.limits import Budget
from service.problems import Fault
from service.tables import Teacher


def budget_faults(location: str, budget: Budget | None, teachers: Sequence[Teacher]) -> list[Fault]:
    """What a budget asks for and no registration says."""
    if budget is None:
        return []
    faults = []
    for field, said, names in (
        ("gpu_s", lambda teacher: teacher.gpus is not None, "`gpus`"),
        ("price", _has_price, "`price_prompt` or `price_completion`"),
    ):
        silent = [teacher.name for teacher in teachers if not said(teacher)]
        if budget.limits()[field] is not None and (silent or not teachers):
            who = f"teacher {', '.join(silent)}" if silent else "a teacher that is yet to be served"
            message = f"{who} is registered without {names}: register it again with that"
            faults.append(Fault(f"{location}.budget.{field}", message))
    return faults


def _has_price(teacher: Teacher) -> bool:
    return teacher.price_prompt is not None or teacher.price_completion is not None
