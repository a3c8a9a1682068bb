"""The drawing of a sweep: quality against bytes, the front as a line, the knee named."""

from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from trainer.report import text
from trainer.report.drawing import SOFT, Plot, axes, draw, settle
from trainer.report.labels import name_points
from trainer.report.palette import LIGHT
from trainer.report.sweeps import ACCURACY, Sweep, said

MARK = 7.0
"""Pixels around a point's middle that names keep away from."""


def draw_sweep(sweep: Sweep, number: int = 0) -> Plot | None:
    """One drawing; where all models take the same bytes it shows them on one upright line. What
    has no finite quality has no place there: the words name it. None where nothing has one."""
    found = [
        (one.weight_bytes, abs(one.quality), one) for one in sweep.models if one.quality is not None
    ]
    if not found:
        return None
    front = sorted((size, quality) for size, quality, one in found if one.on_front)
    with axes() as (figure, plot):
        plot.plot(*zip(*front, strict=True), color=LIGHT["--blue"], lw=1.4)
        for size, quality, one in found:
            knee = one.label == sweep.knee
            plot.plot(
                size,
                quality,
                marker="D" if knee else "o",
                ms=8 if knee else 5,
                color=LIGHT["--orange" if knee else "--blue" if one.on_front else "--ink"],
            )
        plot.margins(0.18)
        plot.set(xlabel="bytes of weights", ylabel=sweep.measure)
        if sweep.measure != ACCURACY:
            plot.invert_yaxis()  # a small KL is good: up is better, as in all the drawings
        plot.xaxis.set_major_formatter(FuncFormatter(lambda size, _: text.size(round(size))))
        plot.xaxis.set_major_locator(MaxNLocator(5))
        settle(figure)
        named: list[tuple[float, float, str, str]] = [
            (size, quality, _name(sweep, one.label, one.ratio), SOFT)
            for size, quality, one in found
        ]
        points = [plot.transData.transform((x, y)) for x, y, _, _ in named]
        name_points(figure, plot, named, [Bbox([point, point]).padded(MARK) for point in points])
        words = "; ".join(
            f"{one.label} {said(one, sweep.measure)} in {text.size(one.weight_bytes)}"
            for one in sweep.models
        )
        title = f"Sweep of {sweep.kind}"
        return draw(f"sweep-{number}", title, f"{sweep.sentence} {words}.", figure)


def _name(sweep: Sweep, label: str, ratio: float) -> str:
    return f"{ratio:g} (knee)" if label == sweep.knee else f"{ratio:g}"
