"""What a child process says, put where others can see it: events and progress in SQL."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service import events
from workers.lease import Lease, write_job

PERIOD_S = 1.0
THINNED = frozenset({"step", "progress"})
"""Of these only the newest in each period is kept: a small model makes hundreds a second."""
COUNTS = ("done", "total", "unit")
FIGURES = ("loss", "tokens_per_s", "epoch")


class Teller:
    """Collects events and writes them at most once a second, in one transaction.

    A database that is locked or away for a moment costs nothing: what was not written is written
    with the next lot.
    """

    def __init__(
        self,
        writing: sessionmaker[Session],
        lease: Lease,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writing, self._lease, self._clock = writing, lease, clock
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._progress: dict[str, Any] = {}
        self._changed = False
        self._written_at = clock()

    def tell(self, type: str, data: dict[str, Any]) -> None:
        """Take an event in; `flush` writes it."""
        if type in THINNED and self._waiting and self._waiting[-1][0] == type:
            self._waiting.pop()
        self._waiting.append((type, data))
        self._update(type, data)

    def show(self, **progress: Any) -> None:
        """Change the job's progress without an event of its own."""
        self._progress |= progress
        self._changed = True

    def flush(self, force: bool = False) -> None:
        """Write what waits, if a period has passed or it must be now. Does nothing once the lease
        is lost: the successor tells its own story."""
        due = force or self._clock() - self._written_at >= PERIOD_S
        if not due or not (self._waiting or self._changed) or self._lease.lost.is_set():
            return
        try:
            with self._writing.begin() as session:
                if not write_job(session, self._lease, {"progress": dict(self._progress)}):
                    self._lease.lost.set()
                    return
                for type, data in self._waiting:
                    events.emit(session, self._lease.job_id, type, data)
        except OperationalError:
            return
        self._waiting.clear()
        self._changed = False
        self._written_at = self._clock()

    def _update(self, type: str, data: dict[str, Any]) -> None:
        if type == "phase":
            self._progress = {"phase": data.get("name"), "detail": data.get("detail")}
        elif type == "progress":
            self._progress |= {key: data[key] for key in COUNTS if key in data}
        elif type == "step":
            figures = {key: data[key] for key in FIGURES if key in data}
            self._progress |= figures | {"done": data.get("step"), "unit": "steps"}
            if "steps" in data:
                self._progress["total"] = data["steps"]
        self._changed = True
