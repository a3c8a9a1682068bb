"""Charts as coordinates."""

from itertools import pairwise

from service.dashboard.compression import label
from service.dashboard.drawing import confidence_chart, pareto_chart
from service.rows import Confidence


def test_the_front_holds_what_nothing_beats() -> None:
    models = [("a", 4.0, 0.5), ("b", 8.0, 0.9), ("c", 6.0, 0.4), ("d", 8.0, 0.8), ("e", 9.0, 0.9)]
    chart = pareto_chart(models, "weights, MiB", "MiB")
    assert chart is not None
    assert {point.label for point in chart.points if point.best} == {"a", "b"}
    places = {point.label: point for point in chart.points}
    a, b = places["a"], places["b"]
    assert chart.front == f"M{a.x:.1f},{a.y:.1f} H{b.x:.1f} V{b.y:.1f}"
    assert a.x < b.x
    assert a.y > b.y, "up is better"
    assert places["d"].title == "d: 8 MiB, 80.0 %"


def test_labels_of_points_that_meet_lie_apart() -> None:
    chart = pareto_chart([("one", 5.0, 0.5), ("two", 5.0, 0.5), ("three", 5.0, 0.5)], "x", "MiB")
    assert chart is not None
    heights = sorted(point.label_y for point in chart.points)
    assert min(high - low for low, high in pairwise(heights)) >= 12
    assert pareto_chart([("alone", 1.0, 0.5)], "x", "MiB") is None


def test_bars_of_confidence_stand_at_their_share() -> None:
    found = [Confidence(low=0.5, high=0.55, rows=10), Confidence(low=0.95, high=1.0, rows=40)]
    chart = confidence_chart(found)
    assert chart is not None
    low, high = chart.bars
    assert high.height == 4 * low.height
    assert abs((low.x - chart.left) / (chart.right - chart.left) - 0.5) < 1e-9
    assert high.title == "95 to 100 %: 40 rows"
    assert confidence_chart([]) is None


def test_points_of_a_sweep_bear_their_ratio() -> None:
    assert label({"kind": "wanda", "sweep": {"ratio": 0.5}}) == "wanda 0.5"
    assert label({"kind": "svd", "sweep": None}) == "svd"
