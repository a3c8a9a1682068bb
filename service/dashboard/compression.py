"""A compression as its page shows it: its stages, and accuracy against what a model costs."""

from collections.abc import Sequence
from typing import Any

from service.dashboard import drawing, words
from service.dashboard.drawing import Chart
from service.tables import Event

Facts = dict[str, Any]


def stages(told: Sequence[Event]) -> list[Facts]:
    """Reports of the stages, in order, the newest of each; `told` is newest first."""
    newest: dict[int, Facts] = {}
    for event in reversed(told):
        if event.type == "stage" and event.data.get("report"):
            newest[int(event.data.get("index") or 0)] = event.data["report"]
    return [newest[index] for index in sorted(newest)]


def charts(reports: Sequence[Facts]) -> list[tuple[str, Chart]]:
    """Title and chart of accuracy against bytes and against time per token, of what went in and of
    what each stage made."""
    ends = [
        (label, facts, accuracy)
        for label, facts in _ends(reports)
        if (accuracy := words.mean_accuracy(facts.get("measurement"))) is not None
    ]
    by_bytes = [
        (label, float(facts["shape"]["weight_bytes"]) / 2**20, accuracy)
        for label, facts, accuracy in ends
        if facts.get("shape")
    ]
    by_time = [
        (label, 1000 / facts["measurement"]["tokens_per_s"], accuracy)
        for label, facts, accuracy in ends
        if facts["measurement"].get("tokens_per_s")
    ]
    drawn = (
        ("Accuracy against bytes", drawing.pareto_chart(by_bytes, "weights, MiB", "MiB")),
        ("Accuracy against time", drawing.pareto_chart(by_time, "time per token, ms", "ms")),
    )
    return [(title, chart) for title, chart in drawn if chart is not None]


def label(report: Facts) -> str:
    """A stage's kind, with its ratio in a sweep."""
    ratio = (report.get("sweep") or {}).get("ratio")
    return str(report.get("kind")) if ratio is None else f"{report.get('kind')} {ratio:g}"


def _ends(reports: Sequence[Facts]) -> list[tuple[str, Facts]]:
    ends: list[tuple[str, Facts]] = []
    for number, report in enumerate(reports):
        if number == 0:
            ends.append(("start", report.get("before") or {}))
        ends.append((label(report), report.get("after") or {}))
    return ends
