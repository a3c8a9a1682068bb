"""A followed job drawn for a terminal: its parts with bars, and a table of the stages."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.story import Story, ending, name_of

MARKS = {
    "queued": ("·", "dim"),
    "running": ("▸", "cyan"),
    "paused": ("‖", "yellow"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("–", "yellow"),
}
BAR_WIDTH = 28


def draw(story: Story) -> RenderableType:
    """The whole picture."""
    job = story.job
    head = Text.assemble((job["name"], "bold"), f"  {job['id']}  ", _state(job))
    parts: list[RenderableType] = [head, _tree(story)]
    if story.stages:
        parts.append(_stages(story.stages))
    return Group(*parts)


def _tree(story: Story) -> Table:
    table = Table.grid(padding=(0, 1))
    for job in story.members:
        mark, style = MARKS[job["state"]]
        words = story.figures(job)
        if job["state"] in ("failed", "cancelled") or job.get("reason"):
            words = ending(job)
        table.add_row(
            Text(mark, style), name_of(job), _bar(job), _elapsed(job), Text(words, overflow="fold")
        )
    return table


def _bar(job: dict[str, Any]) -> RenderableType:
    progress = job["progress"]
    total, done = progress.get("total"), progress.get("done") or 0
    if job["state"] == "succeeded":
        return ProgressBar(total=1, completed=1, width=BAR_WIDTH)
    if job["state"] != "running":
        return Text(" " * BAR_WIDTH)
    if not total:
        return ProgressBar(total=None, pulse=True, width=BAR_WIDTH)
    return ProgressBar(total=total, completed=done, width=BAR_WIDTH)


def _elapsed(job: dict[str, Any]) -> str:
    if not job["started_at"]:
        return ""
    end = datetime.fromisoformat(job["finished_at"]) if job["finished_at"] else datetime.now(UTC)
    seconds = max(0, int((end - datetime.fromisoformat(job["started_at"])).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02}"


def _state(job: dict[str, Any]) -> Text:
    return Text(ending(job), MARKS[job["state"]][1])


def _stages(stages: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("stage", "accuracy", "parameters", "bytes", "KL", "gate"):
        table.add_column(column, justify="left" if column in ("stage", "gate") else "right")
    for stage in sorted(stages, key=lambda each: each.get("index", 0)):
        report = stage.get("report") or {}
        before, after = report.get("before") or {}, report.get("after") or {}
        table.add_row(
            str(stage.get("kind")),
            f"{_accuracy(before)} → {_accuracy(after)}",
            f"{_shape(after, 'parameters')}",
            f"{_shape(before, 'weight_bytes')} → {_shape(after, 'weight_bytes')}",
            _kl(report.get("kl_from_source")),
            "passed" if report.get("passed") else "; ".join(report.get("failures", ["stopped"])),
        )
    return table


def _accuracy(facts: dict[str, Any]) -> str:
    skills = (facts.get("measurement") or {}).get("skills") or {}
    shares = [found["correct"] / found["n"] for found in skills.values() if found.get("n")]
    return f"{100 * sum(shares) / len(shares):.1f}%" if shares else "–"


def _shape(facts: dict[str, Any], name: str) -> str:
    value = (facts.get("shape") or {}).get(name)
    return f"{value:,}" if value is not None else "–"


def _kl(value: float | None) -> str:
    return f"{value:.4f}" if value is not None else "–"
