"""Figures that follow from accuracies, against published and hand-computed values."""

import pytest

from trainer.measurement import wilson
from trainer.report.gap import difference, gap_closed, mean_difference


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_intervals_are_those_of_newcombes_table(correct, n, low, high):
    figure = wilson(correct, n)

    assert (figure.low, figure.high) == pytest.approx((low, high), abs=5e-5)


def test_a_difference_has_newcombes_interval():
    # Newcombe 1998, table II, (a): 56/70 - 48/80, method 10
    found = difference(wilson(56, 70), wilson(48, 80))

    assert (found.share, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_mean_is_narrower_by_the_root_of_its_skills():
    after, before = wilson(56, 70), wilson(48, 80)
    one = difference(after, before)
    four = mean_difference([after] * 4, [before] * 4)

    assert mean_difference([after], [before]) == one
    assert four.share == pytest.approx(one.share)
    assert four.share - four.low == pytest.approx((one.share - one.low) / 2)
    assert four.high - four.share == pytest.approx((one.high - one.share) / 2)


def test_the_gap_closed_is_a_share_of_the_teachers_lead():
    found = gap_closed([wilson(60, 100)], [wilson(20, 100)], [wilson(100, 100)])

    assert found.share == pytest.approx(0.5)
    assert found.low is not None
    assert found.high is not None
    assert 0.35 < found.low < 0.5 < found.high < 0.65


def test_over_several_skills_each_counts_once():
    student = [wilson(50, 100), wilson(4, 10)]
    base = [wilson(10, 100), wilson(2, 10)]
    teacher = [wilson(90, 100), wilson(10, 10)]

    found = gap_closed(student, base, teacher)

    assert found.share == pytest.approx((0.45 - 0.15) / (0.95 - 0.15))


def test_the_interval_is_the_same_in_every_run():
    counts = ([wilson(61, 200)], [wilson(20, 200)], [wilson(180, 200)])

    assert gap_closed(*counts) == gap_closed(*counts)


def test_more_rows_make_a_narrower_interval():
    few = gap_closed([wilson(12, 20)], [wilson(2, 20)], [wilson(18, 20)])
    many = gap_closed([wilson(120, 200)], [wilson(20, 200)], [wilson(180, 200)])

    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low < few.high - few.low


def test_without_a_lead_of_the_teacher_there_is_no_share():
    found = gap_closed([wilson(50, 100)], [wilson(60, 100)], [wilson(60, 100)])

    assert found.share is None
    assert "no better than the base" in str(found.why)


def test_a_lead_within_chance_has_a_share_without_an_interval():
    found = gap_closed([wilson(11, 20)], [wilson(10, 20)], [wilson(12, 20)])

    assert found.share == pytest.approx(0.5)
    assert (found.low, found.high) == (None, None)
    assert "within chance" in str(found.why)
