"""`Retry-After`: for how long a server does not want to be asked."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds from now, never negative; None if the answer doesn't say, or not in a way that can be
    read. A date counts from the server's own `Date`, for clocks differ; without one from `now`,
    which is this machine's clock unless given."""
    said = headers.get("Retry-After")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        until = _date(said)
    if until is None:
        return None
    begun = _date(headers.get("Date", "")) or now or datetime.now(UTC)
    return max(0.0, (until - begun).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
