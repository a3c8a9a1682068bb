"""Why a drain ends before its chunks do."""

from typing import Literal

Stop = Literal["cancelled", "target", "yield", "shutdown", "gone", "failed"]
"""cancelled, target: rows not asked end as not_needed. The others: rows are left as they are, for
the next worker or for nobody."""
SOFT = frozenset({"cancelled", "target"})
GRACE_S = {
    "cancelled": 20.0,
    "target": 600.0,
    "yield": 60.0,
    "shutdown": 5.0,
    "gone": 0.0,
    "failed": 10.0,
}
"""How long requests under way may take to end by themselves: they are paid for."""
