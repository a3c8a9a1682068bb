"""Cells of tables: a figure as text or, where the run gave none, a dash and the reason."""

from prompts.record import Frozen
from trainer.measurement import Accuracy, Estimate
from trainer.report import text
from trainer.report.gap import Difference, GapClosed


class Cell(Frozen):
    """One cell of a table."""

    text: str
    below: str | None = None
    """What stands under the figure in small letters: its 95% interval."""
    why: str | None = None
    """Why the figure is missing; `text` is then a dash."""
    number: bool = True
    """Aligned right."""


def missing(why: str | None) -> Cell:
    """A dash and its reason."""
    return Cell(text=text.DASH, why=why or "the run gave no figure")


def label(words: str | None, why: str | None = None) -> Cell:
    """Words, aligned left."""
    return Cell(text=words, number=False) if words else missing(why)


def accuracy(figure: Accuracy) -> Cell:
    """A share above its interval."""
    return Cell(text=text.percent(figure.share), below=text.interval(figure.low, figure.high))


def change(figure: Difference) -> Cell:
    """A difference above its interval, in points."""
    low, high = text.points(figure.low), text.points(figure.high)
    return Cell(text=text.points(figure.share), below=f"{low} to {high}")


def gap(figure: GapClosed) -> Cell:
    """Share of the gap closed above its interval, as far as there are such."""
    if figure.share is None:
        return missing(figure.why)
    if figure.low is None or figure.high is None:
        return Cell(text=text.percent(figure.share), why=figure.why)
    below = f"{text.percent(figure.low)} to {text.percent(figure.high)}"
    return Cell(text=text.percent(figure.share), below=below)


def count(number: int | None, why: str | None) -> Cell:
    """A whole number."""
    return missing(why) if number is None else Cell(text=text.count(number))


def short(number: int | None, why: str | None) -> Cell:
    """A whole number with three digits that count."""
    return missing(why) if number is None else Cell(text=text.short_count(number))


def size(number: int | None, why: str | None) -> Cell:
    """Bytes."""
    return missing(why) if number is None else Cell(text=text.size(number))


def percent(share: float | None) -> Cell:
    """A share 0..1."""
    return missing("no rows") if share is None else Cell(text=text.percent(share))


def speed(number: float | None, why: str | None) -> Cell:
    """Tokens per second."""
    return missing(why) if number is None else Cell(text=text.speed(number))


def small(number: float | None, why: str | None) -> Cell:
    """Losses, divergences."""
    return missing(why) if number is None else Cell(text=text.small(number))


def estimate(figure: Estimate | None, value: float | None, why: str | None) -> Cell:
    """A loss or divergence above its interval; older reports have its `value` alone."""
    if figure is None:
        return small(value, why)
    below = f"{text.small(figure.low)} to {text.small(figure.high)}"
    return Cell(text=text.small(figure.value), below=below)


def share(figure: Estimate | None, why: str | None) -> Cell:
    """A share of tokens above its interval."""
    if figure is None:
        return missing(why)
    below = text.interval(figure.low, figure.high)
    return Cell(text=text.percent(figure.value), below=below)


def duration(seconds: float | None, why: str | None) -> Cell:
    """Wall time."""
    return missing(why) if seconds is None else Cell(text=text.duration(seconds))


def times(number: float | None, why: str | None) -> Cell:
    """How many times another figure."""
    return missing(why) if number is None else Cell(text=text.ratio(number))
