"""When a cron expression is due in a time zone: moments in UTC, right across clock changes.

Five fields, as Debian's cron reads them: at fixed times of the day a slot in the hour that spring
leaves out comes right after it, and one in the hour that autumn repeats comes once. Expressions
that repeat by the hour or minute follow the clock: none in the hour left out, twice in the other.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

FIELDS = "minute hour day-of-month month day-of-week, such as `30 2 * * 1-5`"
LOOKS_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=366))
"""How far back the newest slots are looked for: frequent ones fill the first of these, and rare
ones are few in the last."""
_EARLY = timedelta(hours=6)
"""No clock change is longer: from so long before, a clock that repeats an hour can't be misread."""


def check_zone(name: str) -> ZoneInfo:
    """The time zone of that name. Raises ValueError with names near it."""
    known = available_timezones()
    if name not in known:
        near = get_close_matches(name, sorted(known), n=3, cutoff=0.6)
        advice = f"; did you mean {' or '.join(near)}?" if near else ", such as Europe/Berlin"
        raise ValueError(f"there is no time zone {name!r}{advice}")
    return ZoneInfo(name)


def check_cron(expression: str) -> None:
    """Raises ValueError for what isn't five cron fields, or never comes."""
    if len(expression.split()) != 5:
        raise ValueError(f"takes five fields: {FIELDS}")
    try:
        found = next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        raise ValueError(f"{str(error).lower()}; takes {FIELDS}") from error
    if found is None:
        raise ValueError("never comes: no month has such a day")


def slots(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The slots later than `after`, in order, UTC. The same whatever moment they are counted from,
    so that any number of clocks agree on them."""
    last = after.astimezone(UTC)
    for found in CronSim(expression, (last - _EARLY).astimezone(zone)):
        slot = found.astimezone(UTC)
        if slot > last:
            last = slot
            yield slot


def newest(
    expression: str, zone: ZoneInfo, after: datetime, until: datetime, most: int
) -> list[datetime]:
    """The newest slots in (after, until], oldest first; at most `most`."""
    found: list[datetime] = []
    for back in LOOKS_BACK:
        start = max(after, until - back)
        found = list(takewhile(lambda slot: slot <= until, slots(expression, zone, start)))
        if len(found) >= most or start == after:
            break
    return found[-most:]


def coming(expression: str, zone: ZoneInfo, after: datetime, count: int) -> list[datetime]:
    """The next `count` slots."""
    return list(islice(slots(expression, zone, after), count))
