"""What holds a drain up, in words for the job's owner."""

import time
from collections.abc import Callable

from service.asking import Endpoint
from service.shared import StorageAwayError
from workers.teacher import Trouble
from workers.work import Work

FULL_DISK_LASTS_S = 2.0
"""A write that found no space is tried again each second: none for so long means there is some."""
AWAY_LASTS_S = 20.0
"""Longer than an attempt takes at a bucket that doesn't answer."""
NOTHING_LOST = "nothing is lost, and the job goes on by itself"
TELL_AFTER_S = 3.0
"""A teacher that fails for so long is told of; shorter hiccups are nobody's business."""


class Troubles:
    """Remembers what was told, so that each change is told once."""

    def __init__(
        self,
        work: Work,
        trouble: Callable[[], tuple[Endpoint, Trouble] | None],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._work, self._trouble, self._patience_s = work, trouble, patience_s
        self._clock = clock
        self._waits: tuple[float, OSError | None] = (0.0, None)
        self._told = "resumed"

    def note_wait(self, error: OSError) -> None:
        """A write has just found no space, or no answer."""
        self._waits = (self._clock(), error)

    def news(self) -> tuple[str, str | None] | None:
        """(event type, what the job waits for) if that has changed since the last call."""
        kind, detail = self._present()
        if kind == self._told:
            return None
        self._told = kind
        return kind, detail

    def _present(self) -> tuple[str, str | None]:
        now, found = self._clock(), self._trouble()
        at, error = self._waits
        if isinstance(error, StorageAwayError):
            if now - at < AWAY_LASTS_S:
                return "storage_away", f"the artifacts' bucket: {error}; {NOTHING_LOST}"
        elif error is not None and now - at < FULL_DISK_LASTS_S:
            words = f"space on the disk of {self._work.root} ({error}): free some"
            return "disk_full", f"{words}; {NOTHING_LOST}"
        if found is not None and now - (found[1].since or now) > TELL_AFTER_S:
            endpoint, trouble = found
            return "teacher_unreachable", (
                f"teacher {endpoint.name} at {endpoint.base_url} to answer ({trouble.detail}); it "
                f"is asked again; silent for {self._patience_s:.0f} s, and the job pauses"
            )
        return "resumed", None
