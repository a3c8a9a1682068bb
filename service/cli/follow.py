"""Following a job to its end: a live tree on a terminal, dated lines elsewhere, JSON lines for
programs."""

import queue
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

from rich.live import Live

from service.cli.client import Api, Event
from service.cli.display import draw
from service.cli.failure import INTERRUPTED, JOB_FAILED, Failure
from service.cli.feeds import FINISHED, LOOK_S, Feeds
from service.cli.options import Screen
from service.cli.story import Story, describe, ending, name_of
from service.pausing import FOR_A_PERSON

LINE_EVERY_S = 5.0
DRAIN_S = 3.0
Done = Callable[[dict[str, Any]], bool]


class Teller(Protocol):
    """Shows a story as it goes on."""

    def heard(self, story: Story, event: Event) -> None:
        """Something happened."""

    def looked(self, story: Story) -> None:
        """A second has passed."""


def follow(api: Api, job_id: str, screen: Screen, until: Done | None = None) -> dict[str, Any]:
    """Show a job until it ends, or `until` says that is enough; the job as it is then. One of its
    parts, or itself, that is paused until a person looks at it ends that too, and is given back.

    Raises Failure when interrupted: the job goes on, and the words say how to watch or stop it.
    """
    feeds = Feeds(api, job_id)
    job = feeds.look()
    story = Story(job or {})
    try:
        if screen.json:
            return _tell(feeds, story, JsonLines(screen), until)
        if not screen.console.is_terminal:
            return _tell(feeds, story, PlainLines(screen), until)
        with Live(console=screen.console, refresh_per_second=4, transient=False) as live:
            return _tell(feeds, story, LiveTree(live), until)
    except KeyboardInterrupt:
        detail = (
            f"{job_id} goes on. Watch it: retort watch {job_id}. Stop it: retort cancel {job_id}."
        )
        raise Failure({"title": "No longer following", "detail": detail}, INTERRUPTED) from None


def exit_code(job: dict[str, Any]) -> int:
    """0 for a job that did what it was to do."""
    return 0 if job["state"] in ("succeeded", "queued", "running") else JOB_FAILED


def _tell(feeds: Feeds, story: Story, teller: Teller, until: Done | None) -> dict[str, Any]:
    over_at: float | None = None
    while True:
        _hear(feeds, story, teller)
        job = feeds.look()
        if job is None:
            continue
        story.look(job)
        teller.looked(story)
        held = next((each for each in story.members if _waits_for_a_person(each)), None)
        over = job["state"] in FINISHED or (until is not None and until(job))
        if (over or held) and over_at is None:
            over_at = time.monotonic()
        # The last events may still be on their way, on streams of their own.
        if over_at is not None and (feeds.events.empty() or time.monotonic() - over_at > DRAIN_S):
            return held or job


def _waits_for_a_person(job: dict[str, Any]) -> bool:
    return job["state"] == "paused" and job.get("reason") in FOR_A_PERSON


def _hear(feeds: Feeds, story: Story, teller: Teller) -> None:
    # Each part has a stream of its own, and what is replayed comes in a heap: in order of time.
    for event in sorted(_arrived(feeds), key=_when):
        story.hear(event)
        teller.heard(story, event)


def _arrived(feeds: Feeds) -> Iterator[Event]:
    deadline = time.monotonic() + LOOK_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            yield feeds.events.get(timeout=left)
        except queue.Empty:
            return


def _when(event: Event) -> datetime:
    return datetime.fromisoformat(event.view["at"])


class JsonLines:
    """Each event as it came, one JSON document a line."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def heard(self, story: Story, event: Event) -> None:
        self._screen.document(event.view)

    def looked(self, story: Story) -> None:
        return


class PlainLines:
    """Dated lines: what happens at once, where things stand every few seconds."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told: dict[str, str] = {}
        self._told_at = time.monotonic()

    def heard(self, story: Story, event: Event) -> None:
        words = describe(event)
        if words is not None:
            self._told[event.view["job_id"]] = words
            self._line(_when(event), _name(story, event.view["job_id"]), words)

    def looked(self, story: Story) -> None:
        if time.monotonic() - self._told_at < LINE_EVERY_S:
            return
        self._told_at = time.monotonic()
        for job in story.members:
            words = story.figures(job)
            if job["state"] not in FINISHED and words and self._told.get(job["id"]) != words:
                self._told[job["id"]] = words
                self._line(datetime.now(UTC), name_of(job), words)

    def _line(self, at: datetime, name: str, words: str) -> None:
        self._screen.say(f"{at.astimezone():%H:%M:%S} {name:<9} {words}")


class LiveTree:
    """The story redrawn in place."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def heard(self, story: Story, event: Event) -> None:
        return

    def looked(self, story: Story) -> None:
        self._live.update(draw(story))


def _name(story: Story, job_id: str) -> str:
    family = [story.job, *story.job.get("children", [])]
    return next((name_of(job) for job in family if job and job["id"] == job_id), job_id)


__all__ = ["ending", "exit_code", "follow"]
