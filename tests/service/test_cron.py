from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cron import check_cron, check_zone, coming, newest, slots

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Africa/Casablanca",  # back and forth around Ramadan
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "America/Sao_Paulo",
)


def local(zone: ZoneInfo, found: list[datetime]) -> list[str]:
    return [f"{slot.astimezone(zone):%m-%d %H:%M}" for slot in found]


def test_a_daily_slot_in_springs_lost_hour_comes_right_after_it() -> None:
    found = coming("30 2 * * *", BERLIN, datetime(2026, 3, 27, 12, tzinfo=UTC), 3)
    assert local(BERLIN, found) == ["03-28 02:30", "03-29 03:00", "03-30 02:30"]


def test_a_daily_slot_in_autumns_repeated_hour_comes_once() -> None:
    found = coming("30 2 * * *", BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert found == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]
    # Also for a clock that begins to count between the two.
    between = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)
    assert coming("30 2 * * *", BERLIN, between, 1) == found[1:]


def test_a_slot_every_half_hour_follows_the_clock() -> None:
    spring = newest("*/30 * * * *", BERLIN, *day(2026, 3, 29), most=100)
    autumn = newest("*/30 * * * *", BERLIN, *day(2026, 10, 25), most=100)
    assert (len(spring), len(autumn)) == (46, 50)


def day(year: int, month: int, date: int) -> tuple[datetime, datetime]:
    """From the last minute before to the last minute of a day in Berlin."""
    start = datetime(year, month, date, tzinfo=BERLIN) - timedelta(minutes=1)
    end = datetime(year, month, date, 23, 59, tzinfo=BERLIN)
    return start.astimezone(UTC), end.astimezone(UTC)


moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
expressions = st.one_of(
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    st.builds("*/{} * * * *".format, st.sampled_from([7, 15, 30])),
    st.builds("{} */{} * * *".format, st.integers(0, 59), st.integers(1, 12)),
    st.builds("{} {} * * {}".format, st.integers(0, 59), st.integers(0, 3), st.integers(0, 6)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), expressions, moments, st.integers(0, 40))
def test_all_clocks_agree_on_the_slots(name: str, cron: str, start: datetime, ahead: int) -> None:
    zone = ZoneInfo(name)
    found = coming(cron, zone, start, 12)
    assert found == sorted(set(found))
    assert found[0] > start
    later = start + timedelta(minutes=37 * ahead)
    after = [slot for slot in found if slot > later]
    assert coming(cron, zone, later, len(after)) == after


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, 59), st.integers(0, 23), moments)
def test_a_daily_slot_comes_once_on_every_day(
    name: str, minute: int, hour: int, start: datetime
) -> None:
    zone = ZoneInfo(name)
    found = coming(f"{minute} {hour} * * *", zone, start, 30)
    days = [slot.astimezone(zone).date() for slot in found]
    assert days == [days[0] + timedelta(days=n) for n in range(30)]


def test_the_newest_slots_of_a_long_time_are_found_without_counting_it_through() -> None:
    until = datetime(2026, 6, 1, tzinfo=UTC)
    found = newest("* * * * *", BERLIN, datetime(2006, 1, 1, tzinfo=UTC), until, 3)
    assert found == [until - timedelta(minutes=n) for n in (2, 1, 0)]
    rare = newest("0 0 1 * *", ZoneInfo("UTC"), datetime(2020, 1, 1, tzinfo=UTC), until, 2)
    assert rare == [datetime(2026, 5, 1, tzinfo=UTC), until]


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("61 * * * *", "bad minute"),
        ("0 0 30 2 *", "day-of-month"),
        ("", "five fields"),
    ],
)
def test_what_is_no_cron_expression_is_refused(cron: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_cron(cron)


def test_an_unknown_zone_is_told_its_neighbours() -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        check_zone("Europe/Berln")
    assert next(slots("0 0 * * *", check_zone("UTC"), datetime(2026, 1, 1, tzinfo=UTC)))
