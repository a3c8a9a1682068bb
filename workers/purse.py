"""What a drain may still spend of a build's budget until its next look at SQL.

At each look the rest of the budget is split evenly among the drains of the job. A drain sends no
request beyond its part, none once its part of the tokens or the price is spent, and between two
looks never more than a window: so the budget is exceeded by no more than what is under way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prompts.limits import Budget

COUNTED = ("prompt_tokens", "completion_tokens", "tokens", "price")
"""Limits that answers use up, beside `requests`; the others are a matter of time."""


@dataclass
class Purse:
    """A drain's part of the budget. Every `take` that was granted is followed by a `put_back`,
    whether or not an answer was paid."""

    budget: Budget | None
    window: int
    _under_way: int = 0
    _sendable: int = 0
    _part: dict[str, float] = field(default_factory=dict)
    _paid: dict[str, float] = field(default_factory=dict)

    def mark(self) -> dict[str, float]:
        """What this drain has paid so far: taken when the counters for a look are."""
        return dict(self._paid)

    def fill(
        self, spent: Mapping[str, float], mark: Mapping[str, float], drains: int, place: int
    ) -> bool:
        """A look: `spent` by all drains, of this one's what it had paid at `mark`; this one is the
        `place`-th of `drains`. False if something is spent up."""
        if self.budget is None:
            return True
        since = {name: paid - mark.get(name, 0) for name, paid in self._paid.items()}
        rest = {
            name: limit - spent.get(name, 0) - since.get(name, 0)
            for name, limit in self.budget.limits().items()
            if limit is not None
        }
        self._part = {name: left / drains for name, left in rest.items() if name in COUNTED}
        self._sendable = self.window
        if "requests" in rest:
            whole, over = divmod(int(rest["requests"]), drains)
            self._sendable = min(self.window, whole + (place < over) - self._under_way)
        return all(left > 0 for left in rest.values())

    def take(self) -> bool:
        """Whether one more request may be sent; it is then under way."""
        if self.budget is not None:
            if self._sendable <= 0 or any(left <= 0 for left in self._part.values()):
                return False
            self._sendable -= 1
        self._under_way += 1
        return True

    def put_back(self) -> None:
        """A request that was taken is no longer under way."""
        self._under_way -= 1

    def pay(self, costs: dict[str, float]) -> None:
        """What an answer cost."""
        tokens = costs.get("prompt_tokens", 0) + costs.get("completion_tokens", 0)
        for name, amount in (costs | {"tokens": tokens}).items():
            self._paid[name] = self._paid.get(name, 0) + amount
            if name in self._part:
                self._part[name] -= amount
