"""Charts and lineage as coordinates; the templates draw them as SVG, without scripts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.rows import Confidence, Length

WIDTH, HEIGHT = 520.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 36.0
LABEL_WIDTH, LABEL_HEIGHT = 90.0, 13.0
NODE_WIDTH, NODE_HEIGHT, GAP_X, GAP_Y = 176.0, 44.0, 36.0, 14.0


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot."""

    x: float
    y: float
    label: str
    title: str
    left: bool
    """The label stands to its left, where there is no room to its right."""
    best: bool
    """Nothing is both cheaper and as good."""
    label_y: float = 0.0


@dataclass(frozen=True)
class Chart:
    """A plot with labelled axes."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    points: tuple[Point, ...] = ()
    front: str = ""
    """Path through the best points."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Node:
    """A box of the lineage."""

    id: str
    kind: str
    title: str
    note: str
    x: float
    y: float
    link: str | None
    here: bool


@dataclass(frozen=True)
class Edge:
    """A line from what was used to what came of it."""

    path: str


@dataclass(frozen=True)
class Lineage:
    """A graph, from inputs at the left to what was made at the right."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


@dataclass(frozen=True)
class Box:
    """What a lineage node shows."""

    id: str
    kind: str
    title: str
    note: str
    link: str | None
    inputs: tuple[str, ...]


def length_chart(lengths: Sequence[Length]) -> Chart | None:
    """Histogram of completion lengths; None without rows."""
    if not lengths:
        return None
    buckets = [(bucket.low, bucket.high, bucket.rows) for bucket in lengths]
    titles = [f"{low} to {high - 1} tokens: {rows:,} rows" for low, high, rows in buckets]
    return _histogram(buckets, titles, lengths[-1].high, "completion tokens")


def confidence_chart(found: Sequence[Confidence]) -> Chart | None:
    """Histogram of agreement among samples; None where no row has any."""
    if not found:
        return None
    buckets = [(100 * one.low, 100 * one.high, one.rows) for one in found]
    titles = [f"{low:.0f} to {high:.0f} %: {rows:,} rows" for low, high, rows in buckets]
    return _histogram(buckets, titles, 100, "agreement among samples, %")


def _histogram(
    buckets: Sequence[tuple[float, float, int]], titles: Sequence[str], end: float, x_label: str
) -> Chart:
    top = max(rows for _, _, rows in buckets)
    scale_x, scale_y = (WIDTH - LEFT - RIGHT) / end, (HEIGHT - TOP - BOTTOM) / top
    bars = tuple(
        Bar(
            x=LEFT + low * scale_x,
            y=HEIGHT - BOTTOM - rows * scale_y,
            width=max(1.0, (high - low) * scale_x - 1),
            height=rows * scale_y,
            title=title,
        )
        for (low, high, rows), title in zip(buckets, titles, strict=True)
    )
    x_ticks = tuple(Tick(LEFT + value * scale_x, f"{value:,.0f}") for value in _round(0, end))
    y_ticks = tuple(
        Tick(HEIGHT - BOTTOM - value * scale_y, f"{value:,.0f}") for value in _round(0, top)
    )
    return Chart(x_label, "rows", x_ticks, y_ticks, bars=bars)


def pareto_chart(
    models: Sequence[tuple[str, float, float]], x_label: str, unit: str
) -> Chart | None:
    """Accuracy against a cost, from (label, cost, accuracy), with the front of those that nothing
    beats in both; None with fewer than two models."""
    if len(models) < 2:
        return None
    costs = [cost for _, cost, _ in models]
    shares = [100 * accuracy for _, _, accuracy in models]
    x_to = max(costs) * 1.08
    spread = max(2.0, max(shares) - min(shares))
    y_from, y_to = max(0.0, min(shares) - spread / 4), min(100.0, max(shares) + spread / 4)
    scale_x = (WIDTH - LEFT - RIGHT) / x_to
    scale_y = (HEIGHT - TOP - BOTTOM) / max(1e-9, y_to - y_from)
    best = _front(costs, shares)
    points = tuple(
        Point(
            x=LEFT + x * scale_x,
            y=HEIGHT - BOTTOM - (y - y_from) * scale_y,
            label=label,
            title=f"{label}: {x:,.4g} {unit}, {y:.1f} %",
            left=x > x_to * 0.6,
            best=number in best,
        )
        for number, ((label, _, _), x, y) in enumerate(zip(models, costs, shares, strict=True))
    )
    x_ticks = tuple(Tick(LEFT + value * scale_x, f"{value:,.4g}") for value in _round(0, x_to))
    y_ticks = tuple(
        Tick(HEIGHT - BOTTOM - (value - y_from) * scale_y, f"{value:,.3g}")
        for value in _round(y_from, y_to)
    )
    front = _steps([points[number] for number in best])
    return Chart(x_label, "accuracy, %", x_ticks, y_ticks, points=_apart(points), front=front)


def _front(costs: Sequence[float], shares: Sequence[float]) -> list[int]:
    """Places of the models that no cheaper one equals, by cost."""
    best: list[int] = []
    for number in sorted(range(len(costs)), key=lambda place: (costs[place], -shares[place])):
        if not best or shares[number] > shares[best[-1]]:
            best.append(number)
    return best


def _steps(points: Sequence[Point]) -> str:
    """A line from point to point that rises where the next one stands."""
    first, *rest = points
    return f"M{first.x:.1f},{first.y:.1f}" + "".join(f" H{one.x:.1f} V{one.y:.1f}" for one in rest)


def _apart(points: Sequence[Point]) -> tuple[Point, ...]:
    """Labels moved down where they would lie on each other."""
    placed: list[Point] = []
    for point in sorted(points, key=lambda one: one.y):
        lower = [
            one.label_y + LABEL_HEIGHT
            for one in placed
            if abs(one.x - point.x) < LABEL_WIDTH and one.label_y + LABEL_HEIGHT > point.y
        ]
        placed.append(replace(point, label_y=max([point.y, *lower])))
    return tuple(placed)


def lineage(boxes: Mapping[str, Box], here: str) -> Lineage:
    """Lays boxes out in columns: a box stands right of everything that it was made from."""
    depth: dict[str, int] = {}

    def column(id: str, above: frozenset[str]) -> int:
        if id not in depth:
            inputs = [one for one in boxes[id].inputs if one in boxes and one not in above]
            depth[id] = 1 + max((column(one, above | {id}) for one in inputs), default=-1)
        return depth[id]

    for id in boxes:
        column(id, frozenset({id}))
    rows: dict[int, int] = {}
    nodes: dict[str, Node] = {}
    for id, box in sorted(boxes.items(), key=lambda entry: (depth[entry[0]], entry[0])):
        row = rows.get(depth[id], 0)
        rows[depth[id]] = row + 1
        x, y = depth[id] * (NODE_WIDTH + GAP_X), row * (NODE_HEIGHT + GAP_Y)
        nodes[id] = Node(id, box.kind, box.title, box.note, x, y, box.link, id == here)
    edges = tuple(
        _edge(nodes[one], nodes[id])
        for id, box in boxes.items()
        for one in box.inputs
        if one in nodes and depth[one] < depth[id]
    )
    width = (max(rows) + 1) * (NODE_WIDTH + GAP_X) - GAP_X
    height = max(rows.values()) * (NODE_HEIGHT + GAP_Y) - GAP_Y
    return Lineage(tuple(nodes.values()), edges, width, height)


def _edge(source: Node, target: Node) -> Edge:
    x1, y1 = source.x + NODE_WIDTH, source.y + NODE_HEIGHT / 2
    x2, y2 = target.x, target.y + NODE_HEIGHT / 2
    middle = x2 - GAP_X / 2
    return Edge(
        f"M{x1:.0f},{y1:.0f} C{middle:.0f},{y1:.0f} {middle:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    )


def _round(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values, some five of them."""
    span = max(1e-9, high - low)
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]
