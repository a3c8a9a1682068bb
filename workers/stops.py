"""Why a drain ends before its chunks do."""

from typing import Literal

Stop = Literal["cancelled", "budget", "paused", "yield", "shutdown", "gone", "failed"]
"""cancelled, budget: rows not asked end as not_needed. The others: rows are left as they are, for
the next worker or for nobody."""
SOFT = frozenset({"cancelled", "budget"})
GRACE_S: dict[Stop | None, float] = {
    None: 600.0,
    "cancelled": 20.0,
    "budget": 600.0,
    "paused": 60.0,
    "yield": 60.0,
    "shutdown": 5.0,
    "gone": 0.0,
    "failed": 10.0,
}
"""How long requests under way may take to end by themselves: they are paid for."""
