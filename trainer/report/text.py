"""Figures as people read them: units, rounding, and a dash for what is missing."""

from datetime import timedelta

from trainer.measurement import Accuracy

DASH = "—"


def percent(share: float) -> str:
    """A share 0..1 in per cent, one digit: 0.1234 -> '12.3%'."""
    return f"{share * 100:.1f}%".replace("-", "−")


def points(share: float) -> str:
    """A difference of shares in percentage points, signed: 0.1234 -> '+12.3'."""
    rounded = round(share * 100, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def accuracy(figure: Accuracy) -> str:
    """Share and its 95% interval: '62.0% (55.1–68.4)'."""
    return f"{percent(figure.share)} ({interval(figure.low, figure.high)})"


def interval(low: float, high: float) -> str:
    """The ends of an interval of a share, in per cent: '55.1–68.4'."""
    return f"{low * 100:.1f}–{high * 100:.1f}"


def count(number: int) -> str:
    """A whole number with thousands apart: 1234567 -> '1,234,567'."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """Parameters and the like: 4812345 -> '4.81 M'."""
    return _scaled(number, ("", "k", "M", "B", "T"))


def size(number: int) -> str:
    """Bytes in powers of 1000: 9812345 -> '9.81 MB'."""
    return _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def speed(tokens_per_s: float) -> str:
    """Tokens per second: 1234.5 -> '1,234', 12.345 -> '12.3'."""
    return _three(tokens_per_s)


def duration(seconds: float) -> str:
    """Wall time: 5.2 -> '5.2 s', 754 -> '12 min 34 s', 7384 -> '2 h 3 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(timedelta(seconds=round(seconds)).total_seconds())
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ratio(number: float) -> str:
    """How many times: 0.1234 -> '0.123×', 12.34 -> '12.3×'."""
    return f"{_three(number)}×"


def small(number: float) -> str:
    """Losses, divergences, log-probabilities: four digits that count."""
    return f"{number:.4g}".replace("-", "−")


def _scaled(number: int, units: tuple[str, ...]) -> str:
    power = min(len(units) - 1, max(0, (len(str(abs(number))) - 1) // 3))
    return f"{_three(number / 1000**power)} {units[power]}".rstrip()


def _three(number: float) -> str:
    """Three digits that count, and never an exponent for large numbers."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
