"""Names beside the points of a scatter plot, moved until none hides another."""

from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

FONT_SIZE = 9
CROSSING = 300.0
"""Pixels of covered area that touching anything at all counts as."""
REACHES = (9, 18, 30, 44, 60)
"""Distances from the point to try, in typographic points."""
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def name_points(
    figure: Figure, axes: Axes, points: list[tuple[float, float, str, str]], taken: list[Bbox]
) -> None:
    """Write each (x, y, name, colour) at the nearest place that covers neither `taken` (pixels)
    nor another name; where there is none, at the one that covers least."""
    boxes = list(taken)
    scale = figure.dpi / 72
    for x, y, name, colour in points:
        at, height = axes.transData.transform((x, y))
        size = _size(axes, name)
        found = {
            place: _box((at, height), size, place[0] * scale, place[1])
            for place in product(REACHES, SIDES)
        }
        best = min(found, key=lambda place: _cost(found[place], boxes, axes.bbox))
        boxes.append(found[best])
        _write(axes, (x, y), name, colour, *best)


def _size(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height in pixels, with a little air."""
    text = axes.text(0, 0, name, fontsize=FONT_SIZE)
    extent = text.get_window_extent()
    text.remove()
    return extent.width + 3, extent.height + 3


def _box(
    centre: tuple[float, float], size: tuple[float, float], reach: float, side: tuple[int, int]
) -> Bbox:
    """Where a name of that size stands, so many pixels aside: side 1 is right or above."""
    (x, y), (width, height), (across, up) = centre, size, side
    left = x + across * reach - width * (1 - across) / 2
    low = y + up * reach - height * (1 - up) / 2
    return Bbox.from_bounds(left, low, width, height)


def _write(
    axes: Axes,
    point: tuple[float, float],
    name: str,
    colour: str,
    reach: int,
    side: tuple[int, int],
) -> None:
    across, up = side
    line = {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 0, "shrinkB": 3}
    axes.annotate(
        name,
        point,
        xytext=(across * reach, up * reach),
        textcoords="offset points",
        ha={1: "left", 0: "center", -1: "right"}[across],
        va={1: "bottom", 0: "center", -1: "top"}[up],
        fontsize=FONT_SIZE,
        arrowprops=line if reach > REACHES[0] else None,
    )


def _cost(box: Bbox, others: list[Bbox], frame: Bbox) -> float:
    """Zero for a free place; a thin line that is crossed counts nearly as much as a name."""
    shared = [found for other in others if (found := Bbox.intersection(box, other))]
    inside = Bbox.intersection(box, frame)
    outside = _area(box) - (_area(inside) if inside else 0.0)
    return sum(CROSSING + _area(found) for found in shared) + 10 * outside


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
