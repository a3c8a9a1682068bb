"""What a drain may still spend of a build's budget until its next look at SQL.

At each look the rest of the budget is split evenly among the drains of the job. A drain sends no
request beyond its part of the requests, and none once its part of the others is spent: so the
budget is exceeded by no more than what is under way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prompts.limits import Budget

COUNTED = ("requests", "prompt_tokens", "completion_tokens", "tokens", "price")
"""Limits that requests use up; the others are a matter of time."""


@dataclass
class Purse:
    """A drain's part of the budget."""

    budget: Budget | None
    _part: dict[str, float] = field(default_factory=dict)
    _filled: bool = False

    def fill(self, spent: Mapping[str, float], under_way: int, drains: int, place: int) -> bool:
        """A look: `spent` by all drains so far, this one the `place`-th of `drains`. False if
        something is spent up. Call it with what was `pay`d included in `spent`."""
        if self.budget is None:
            return True
        self._filled = True
        rest = {
            name: limit - spent.get(name, 0)
            for name, limit in self.budget.limits().items()
            if limit is not None
        }
        self._part = {name: left / drains for name, left in rest.items() if name in COUNTED}
        if "requests" in rest:
            whole = int(rest["requests"])
            self._part["requests"] = whole // drains + (place < whole % drains) - under_way
        return all(left > 0 for left in rest.values())

    def take(self) -> bool:
        """Whether one more request may be sent; it is then counted."""
        if self.budget is None:
            return True
        if not self._filled or any(left <= 0 for left in self._part.values()):
            return False
        if "requests" in self._part:
            self._part["requests"] -= 1
        return True

    def pay(self, costs: Mapping[str, float]) -> None:
        """An answer came in. (The request itself was counted when it was taken.)"""
        for name in self._part:
            if name != "requests":
                self._part[name] -= costs.get(name, 0)
