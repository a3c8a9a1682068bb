"""Figures, times and events as people read them."""

import json
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

STATES = {
    "queued": "waits",
    "running": "runs",
    "paused": "paused",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


NONE = "–"
"""What stands where there is nothing."""


def count(value: Any) -> str:
    """A number with thin groups; a dash for none."""
    if _lacks(value):
        return NONE
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def size(value: float | None) -> str:
    """Bytes in the largest unit that keeps a digit before the point."""
    if value is None or _lacks(value):
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes all")


def percent(value: float | None) -> str:
    """A share as per cent."""
    return NONE if value is None or _lacks(value) else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """A time span in its two largest units."""
    if seconds is None or _lacks(seconds):
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def moment(value: datetime | None) -> Markup | str:
    """A time that the browser shows in the reader's zone, and UTC without scripts."""
    if value is None or _lacks(value):
        return NONE
    stamp = value.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        stamp.isoformat(timespec="seconds"), stamp.strftime("%Y-%m-%d %H:%M")
    )


def pretty(value: Any) -> str:
    """A value as indented JSON, or a string as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def short(value: Any) -> str:
    """A small value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(each)}" for name, each in value.items()) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(map(short, value)) or NONE
    return count(value) if isinstance(value, int | float) else str(value or NONE)


def skills(measured: dict[str, Any]) -> str:
    """Accuracies per skill in words."""
    parts = [
        f"{name} {100 * found['correct'] / found['n']:.0f} % of {found['n']}"
        for name, found in measured.items()
        if found.get("n")
    ]
    return ", ".join(parts)


def mean_accuracy(measured: dict[str, Any] | None) -> float | None:
    """Mean over skills, each counting once; None where nothing was measured."""
    shares = [
        found["correct"] / found["n"]
        for found in (measured or {}).get("skills", {}).values()
        if found.get("n")
    ]
    return sum(shares) / len(shares) if shares else None


def event_words(kind: str, data: dict[str, Any]) -> str:
    """An event in words."""
    match kind:
        case "state":
            words = STATES.get(str(data.get("state")), str(data.get("state")))
            why = data.get("detail") or data.get("reason")
            return f"{words}: {why}" if why else words
        case "phase":
            return f"{data.get('name')} {data.get('detail') or ''}".strip()
        case "progress":
            return progress_words(data)
        case "step":
            return f"step {data.get('step')} of {data.get('steps')}, loss {data.get('loss')}"
        case "validation":
            return f"step {data.get('step')}, validation loss {data.get('loss')}"
        case "accuracy":
            return skills(data.get("skills", {}))
        case "stage":
            return _stage(data)
        case "published":
            return f"{data.get('kind')} {data.get('id')} ({data.get('name')})"
        case "error":
            return f"{data.get('title')}: {data.get('detail')}"
    return str(data.get("detail") or short(data))


def progress_words(progress: dict[str, Any]) -> str:
    """How far something is."""
    if progress.get("done") is None:
        return str(progress.get("phase") or "")
    total = f" of {count(progress['total'])}" if progress.get("total") else ""
    words = f"{count(progress['done'])}{total} {progress.get('unit', '')}".rstrip()
    rate = progress.get("completion_tokens_per_s") or progress.get("tokens_per_s")
    return f"{words}, {count(rate)} tokens/s" if rate else words


def remaining_s(
    progress: dict[str, Any], started_at: datetime | None, paused_s: float
) -> float | None:
    """Seconds to go if it goes on as it did on average, its pauses left out; None while that can't
    be told."""
    done, total = progress.get("done"), progress.get("total")
    if not done or not total or started_at is None or done >= total:
        return None
    elapsed_s = max(0.0, (datetime.now(UTC) - started_at).total_seconds() - paused_s)
    return elapsed_s * float(total - done) / float(done)


def _stage(data: dict[str, Any]) -> str:
    report = data.get("report") or {}
    verdict = "passed" if report.get("passed") else "stopped by its gate"
    why = f": {'; '.join(report['failures'])}" if report.get("failures") else ""
    return f"stage {data.get('index')} {data.get('kind')} {verdict}{why}"


def _lacks(value: Any) -> bool:
    return value is None or isinstance(value, Undefined) or value == ""


def _state(value: str) -> str:
    return STATES.get(value, value)


FILTERS = {
    "count": count,
    "size": size,
    "percent": percent,
    "duration": duration,
    "moment": moment,
    "pretty": pretty,
    "short": short,
    "state": _state,
}
