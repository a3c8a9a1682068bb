"""The plots of a report. Each gives None where the chain lacks its figures."""

from collections.abc import Callable
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

from trainer.measurement import Accuracy
from trainer.report import text
from trainer.report.chain import Chain, Part
from trainer.report.derive import Derived, part_seconds
from trainer.report.drawing import SOFT, Plot, axes, draw, settle, shorten
from trainer.report.figures import ModelFigures
from trainer.report.labels import name_points
from trainer.report.palette import LIGHT, MARKERS, SERIES
from trainer.report.sweep_plot import draw_sweep

MOST_POINTS = 400
"""Points of a curve; longer ones are averaged in buckets."""
MOST_REASONS = 7
"""Reject reasons drawn apart; the rarest of more share a colour."""
CAP, MARK = 4.0, 7.0
"""Pixels on each side of an interval's line and of a point's middle that names keep away from."""
ROLES = {"teacher": 0, "base": 1, "student": 2, "stage": 3}
"""Which colour and marker a model has."""


def all_plots(chain: Chain, derived: Derived) -> tuple[Plot, ...]:
    """Every plot that the chain has figures for, in the page's order."""
    found = [training_loss(chain)]
    for number, skill in enumerate(derived.skills):
        found.append(accuracy_against_bytes(derived, skill, number))
        found.append(accuracy_against_speed(derived, skill, number))
    found += [draw_sweep(sweep, number) for number, sweep in enumerate(derived.sweeps)]
    found += [rows_by_end(chain), wall_time(chain)]
    return tuple(plot for plot in found if plot)


def training_loss(chain: Chain) -> Plot | None:
    """Loss of each step and of the validation split."""
    training = chain.training
    if training is None:
        return None
    steps = [(step.step, step.loss) for step in training.steps if step.loss is not None]
    looks = [(look.step, look.loss) for look in training.validation if look.loss is not None]
    if not steps and not looks:
        return None
    with axes() as (figure, plot):
        if steps:
            plot.plot(*_thinned(steps), color=LIGHT["--blue"], lw=1.1, label="train")
        if looks:
            at, losses = zip(*looks, strict=True)
            plot.plot(at, losses, color=LIGHT["--orange"], marker="o", ms=4, lw=1.4, label="validation")  # fmt: skip  # noqa: E501
        plot.set(xlabel="optimizer step", ylabel="loss, nats per token", ylim=(0, None))
        plot.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        plot.legend()
        return draw("training-loss", "Training loss", _loss_in_words(steps, looks), figure)


def accuracy_against_bytes(derived: Derived, skill: str, number: int = 0) -> Plot | None:
    """Accuracy of one skill over the bytes of the weights, logarithmic."""
    return _scatter(
        derived.models,
        skill,
        ("accuracy-bytes", number, "bytes of weights (logarithmic)"),
        lambda model: model.weight_bytes,
        lambda size: text.size(round(size)),
    )


def accuracy_against_speed(derived: Derived, skill: str, number: int = 0) -> Plot | None:
    """Accuracy of one skill over generated tokens per second, logarithmic."""
    return _scatter(
        derived.models,
        skill,
        ("accuracy-speed", number, "tokens/s in transformers (logarithmic)"),
        lambda model: model.tokens_per_s,
        text.speed,
    )


def rows_by_end(chain: Chain) -> Plot | None:
    """One stacked bar: how the dataset's rows ended."""
    if chain.dataset is None:
        return None
    ends = _ends(chain)
    total = sum(number for _, number in ends)
    if not total:
        return None
    with axes(height=2.0 + 0.17 * len(ends)) as (figure, plot):
        left = 0
        for place, (name, number) in enumerate(ends):
            colour = LIGHT["--green"] if place == 0 else LIGHT[_reject_colour(place)]
            words = f"{shorten(name)}: {text.count(number)} ({text.percent(number / total)})"
            plot.barh(0, number, left=left, color=colour, edgecolor="white", lw=0.8, label=words)
            left += number
        plot.set(xlim=(0, total), ylim=(-0.5, 0.5), yticks=[], xlabel="rows")
        plot.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: text.count(round(rows))))
        plot.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        plot.spines["left"].set_visible(False)
        figure.legend(loc="outside lower left", ncols=2 if len(ends) > 4 else 1)
        words = "; ".join(f"{name} {text.count(number)}" for name, number in ends)
        return draw("rows", "How the rows ended", f"Of {text.count(total)} rows: {words}.", figure)


def wall_time(chain: Chain) -> Plot | None:
    """When each part ran, from the first one's start."""
    parts = [part for part in chain.parts if part.started_at and part_seconds(part) is not None]
    if not parts:
        return None
    first = min(part.started_at for part in parts if part.started_at)
    with axes(height=1.2 + 0.36 * len(parts)) as (figure, plot):
        spans = [_span(part, first.timestamp()) for part in parts]
        end = max(begin + seconds for begin, seconds in spans) or 1.0
        for row, (part, (begin, seconds)) in enumerate(zip(parts, spans, strict=True)):
            _bar(plot, row, part, (begin, seconds), end)
        plot.set_yticks(range(len(parts)), [shorten(part.kind) for part in parts])
        plot.set(xlabel="time since the start", xlim=(0, end))
        plot.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _clock(at)))
        plot.xaxis.set_major_locator(MaxNLocator(5))
        plot.grid(visible=False, axis="y")
        plot.invert_yaxis()
        words = "; ".join(f"{part.kind} {text.duration(part_seconds(part) or 0)}" for part in parts)
        return draw("wall-time", "Wall time of the parts", f"Wall time: {words}.", figure)


def _bar(plot: Axes, row: int, part: Part, span: tuple[float, float], end: float) -> None:
    """A part's bar and its time: within it if there is room, else on the side that has some."""
    begin, seconds = span
    fine = part.state == "succeeded"
    plot.barh(
        row,
        max(seconds, end / 300),
        left=begin,
        color=LIGHT["--blue"] if fine else LIGHT["--red"],
        height=0.6,
    )
    words = text.duration(seconds) + ("" if fine else f", {shorten(part.state)}")
    air = end / 80
    if seconds > end / 3:
        place, side, colour = begin + seconds / 2, "center", LIGHT["--paper"]
    elif begin > end / 2:
        place, side, colour = begin - air, "right", LIGHT["--ink"]
    else:
        place, side, colour = begin + seconds + air, "left", LIGHT["--ink"]
    plot.text(place, row, words, va="center", ha=side, color=colour, fontsize=9)


def _scatter(
    models: tuple[ModelFigures, ...],
    skill: str,
    named: tuple[str, int, str],
    value: Callable[[ModelFigures], float | None],
    written: Callable[[float], str],
) -> Plot | None:
    points = [
        (x, measured, model)
        for model in models
        if (x := value(model)) and (measured := model.skills.get(skill))
    ]
    if not points:
        return None
    name, number, title = named
    with axes() as (figure, plot):
        plot.set_xscale("log")
        plot.set(xlabel=title, ylabel=f"accuracy, {shorten(skill)}", ylim=(-0.03, 1.03))
        for x, measured, model in points:
            _point(plot, x, measured, model)
        _widen(plot, [x for x, _, _ in points], written)
        plot.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        names = [(x, measured.share, shorten(model.label), SOFT) for x, measured, model in points]
        settle(figure)
        taken = [box for x, measured, _ in points for box in _boxes(plot, x, measured)]
        name_points(figure, plot, names, taken)
        what = "bytes" if name.endswith("bytes") else "speed"
        words = "; ".join(
            f"{model.label} {text.accuracy(measured)} at {written(x)}"
            for x, measured, model in points
        )
        title = f"Accuracy against {what}: {skill}"
        return draw(f"{name}-{number}", title, f"{title}, 95% intervals. {words}.", figure)


def _point(plot: Axes, x: float, measured: Accuracy, model: ModelFigures) -> None:
    role = ROLES[model.role]
    colour = LIGHT["--red"] if model.passed is False else LIGHT[SERIES[role]]
    ends = [[measured.share - measured.low], [measured.high - measured.share]]
    plot.errorbar(
        x, measured.share, yerr=ends, fmt="x" if model.passed is False else MARKERS[role],
        color=colour, ms=6, capsize=3, elinewidth=1.1,
    )  # fmt: skip


def _boxes(plot: Axes, x: float, measured: Accuracy) -> list[Bbox]:
    """Where a point and its interval are, in pixels."""
    ends = [(x, measured.low), (x, measured.high)]
    point = plot.transData.transform([(x, measured.share)])
    return [
        Bbox(plot.transData.transform(ends)).padded(CAP),
        Bbox([*point, *point]).padded(MARK),
    ]


def _widen(plot: Axes, values: list[float], written: Callable[[float], str]) -> None:
    """Room on both sides for names, and ticks with units in place of powers of ten."""
    low, high = min(values) / 1.8, max(values) * 1.8
    plot.set_xlim(low, high)
    marks = [
        digit * 10.0**power
        for power in range(-3, 16)
        for digit in ((1, 2, 5) if high / low < 100 else (1,))
        if low <= digit * 10.0**power <= high
    ]
    plot.set_xticks(marks, [written(mark) for mark in marks])
    plot.xaxis.set_minor_formatter(NullFormatter())


def _thinned(points: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
    width = -(-len(points) // MOST_POINTS)
    buckets = [points[start : start + width] for start in range(0, len(points), width)]
    return (
        [fmean(step for step, _ in bucket) for bucket in buckets],
        [fmean(loss for _, loss in bucket) for bucket in buckets],
    )


def _loss_in_words(steps: list[tuple[int, float]], looks: list[tuple[int, float]]) -> str:
    words = []
    for name, points in (("Training", steps), ("Validation", looks)):
        if points:
            (first, begin), (last, end) = points[0], points[-1]
            words.append(
                f"{name} loss goes from {text.small(begin)} at step {first} "
                f"to {text.small(end)} at step {last}."
            )
    return " ".join(words)


def _ends(chain: Chain) -> list[tuple[str, int]]:
    dataset = chain.dataset
    if dataset is None:
        return []
    reasons = sorted(dataset.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    reasons += [(f"not needed: {why}", rows) for why, rows in sorted(dataset.not_needed.items())]
    reasons = [(reason, rows) for reason, rows in reasons if rows]
    rest = reasons[MOST_REASONS:]
    if len(rest) > 1:
        others = (f"{len(rest)} other reasons", sum(rows for _, rows in rest))
        reasons = [*reasons[:MOST_REASONS], others]
    return [("accepted", dataset.accepted), *reasons]


def _reject_colour(place: int) -> str:
    others = [name for name in SERIES if name != "--green"]
    # Orange first: the commonest reason must not look like the accepted rows.
    order = [others[1], others[0], *others[2:]]
    return order[(place - 1) % len(order)]


def _span(part: Part, first: float) -> tuple[float, float]:
    begin = part.started_at.timestamp() - first if part.started_at else 0.0
    return begin, part_seconds(part) or 0.0


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
