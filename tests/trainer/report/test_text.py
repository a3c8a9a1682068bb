"""Figures as people read them."""

import pytest

from trainer.report import text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (text.percent(0.1234), "12.3%"),
        (text.percent(-0.05), "−5.0%"),
        (text.points(0.1234), "+12.3"),
        (text.points(-0.0001), "0.0"),
        (text.short_count(4_812_345), "4.81 M"),
        (text.short_count(999_900), "1,000 k"),
        (text.short_count(12), "12"),
        (text.size(9_812_345), "9.81 MB"),
        (text.size(0), "0 B"),
        (text.speed(1234.5), "1,234"),
        (text.speed(12.345), "12.3"),
        (text.duration(5.21), "5.2 s"),
        (text.duration(754), "12 min 34 s"),
        (text.duration(7384), "2 h 3 min"),
        (text.ratio(0.12345), "0.123×"),
        (text.small(0.000123456), "0.0001235"),
    ],
)
def test_units_and_rounding(found, expected):
    assert found == expected
