"""Live news of a job and its parts: event streams that come back by themselves after a drop."""

import queue
import threading
import time
from typing import Any

import httpx

from service.cli.client import Api, Event
from service.cli.failure import UNREACHABLE, Failure

PATIENCE_S = 60.0
"""An API that is away for so long is given up; it may be restarted meanwhile."""
LOOK_S = 1.0
FINISHED = frozenset({"succeeded", "failed", "cancelled"})


class Feeds:
    """Event streams of a job and of each of its parts, merged into one queue."""

    def __init__(self, api: Api, job_id: str) -> None:
        self.api, self.job_id = api, job_id
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._followed: set[str] = set()
        self._away_since: float | None = None

    def look(self) -> dict[str, Any] | None:
        """The job as it is now, its parts followed; None while the API is away for a moment.

        Raises Failure if it stays away, or knows no such job.
        """
        try:
            job: dict[str, Any] = self.api.get(f"/jobs/{self.job_id}")
        except Failure as failure:
            self._be_patient(failure)
            return None
        self._away_since = None
        for member in (job, *job["children"]):
            self._follow(member["id"])
        return job

    def _be_patient(self, failure: Failure) -> None:
        self._away_since = self._away_since or time.monotonic()
        away_s = time.monotonic() - self._away_since
        if failure.code != UNREACHABLE or away_s > PATIENCE_S:
            raise failure

    def _follow(self, job_id: str) -> None:
        if job_id not in self._followed:
            self._followed.add(job_id)
            threading.Thread(target=self._stream, args=(job_id,), daemon=True).start()

    def _stream(self, job_id: str) -> None:
        seen = 0
        while True:
            try:
                for event in self.api.events(job_id, seen):
                    seen = event.id
                    self.events.put(event)
                    if event.type == "state" and event.view["data"].get("state") in FINISHED:
                        return
            except (httpx.TransportError, Failure):
                # `look` decides when an API that is away is given up.
                pass
            time.sleep(LOOK_S)
