"""For how long a server does not want to be asked: seconds, or a date by its own clock."""

from datetime import UTC, datetime

import pytest

from service.retry_after import retry_after_s

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AT_ONE = "Sun, 01 Mar 2026 12:01:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": AT_ONE}, 60.0),
        ({"Retry-After": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30"}, 30.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "Sun, 99 Mar 2026 12:00:30 GMT"}, None),
        # The server's clock is an hour ahead of ours; it means 20 s.
        (
            {
                "Retry-After": "Sun, 01 Mar 2026 13:00:20 GMT",
                "Date": "Sun, 01 Mar 2026 13:00:00 GMT",
            },
            20.0,
        ),
        ({"Retry-After": AT_ONE, "Date": "yesterday"}, 60.0),
    ],
)
def test_it_is_seconds_or_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, NOON) == expected
