"""What is known of a followed job: its rows as they stand, and what its events told."""

from dataclasses import dataclass, field
from typing import Any

from service.cli.client import Event
from service.cli.learning import sample, terms, validation


@dataclass
class Story:
    """A job, its parts, and the figures that came by. Filled in by `look` and `hear`."""

    job: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Job id -> newest figures of its progress events that its row doesn't hold."""
    learnt: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Job id -> data of its newest `step` event."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Data of the `stage` events, newest per index."""
    accuracies: list[dict[str, Any]] = field(default_factory=list)
    """Data of the `accuracy` events."""

    @property
    def members(self) -> list[dict[str, Any]]:
        """The parts of a recipe, or the job itself."""
        return self.job.get("children") or ([self.job] if self.job else [])

    def look(self, job: dict[str, Any]) -> None:
        """Take in the rows."""
        self.job = job

    def hear(self, event: Event) -> None:
        """Take in an event."""
        data = event.view["data"]
        if event.type in ("progress", "step"):
            self.rates[event.view["job_id"]] = data
        if event.type == "step":
            self.learnt[event.view["job_id"]] = data
        elif event.type == "phase":
            # Figures of the phase before say nothing of this one.
            self.rates.pop(event.view["job_id"], None)
        elif event.type == "stage":
            self.stages = [each for each in self.stages if each.get("index") != data.get("index")]
            self.stages.append(data)
        elif event.type == "accuracy":
            self.accuracies.append(data)

    def figures(self, job: dict[str, Any]) -> str:
        """A job's present figures in words: rows, tokens/s, loss."""
        progress = job["progress"] | self.rates.get(job["id"], {})
        words = [_counts(progress)] + [
            f"{name} {progress[name]}" for name in _ROWS if progress.get(name)
        ]
        if progress.get("loss") is not None:
            words.append(f"loss {progress['loss']:.4f}")
            words += terms(self.learnt.get(job["id"], {}))
        speed = progress.get("tokens_per_s") or progress.get("completion_tokens_per_s")
        if speed:
            words.append(f"{speed:,.0f} tokens/s")
        phase = progress.get("phase")
        if phase and job["state"] == "running":
            detail = progress.get("detail")
            words.insert(0, f"{phase}: {detail}" if detail else str(phase))
        if job.get("waiting_for"):
            words.append(f"waits for {job['waiting_for']}")
        return ", ".join(word for word in words if word)


def name_of(job: dict[str, Any]) -> str:
    """What a line calls a job."""
    return str(job["part"] or job["kind"])


def ending(job: dict[str, Any]) -> str:
    """How a job ended, in words."""
    reason = f" ({job['reason']})" if job.get("reason") else ""
    detail = f": {job['detail']}" if job.get("detail") else ""
    return f"{job['state']}{reason}{detail}"


def describe(event: Event) -> str | None:
    """An event worth a line of its own, in words; None for those that only move counters."""
    data = event.view["data"]
    match event.type:
        case "state":
            return ending({"detail": None, "reason": None} | data)
        case "phase":
            return f"{data.get('name')}: {data.get('detail') or ''}".rstrip(": ")
        case "validation":
            return validation(data)
        case "samples":
            return sample(data)
        case "accuracy":
            return f"accuracy {skills(data.get('skills', {}))}"
        case "stage":
            return _stage(data)
        case "crash" | "warning" | "disk_full" | "storage_away" | "teacher_unreachable" | "waiting":
            return f"{event.type.replace('_', ' ')}: {data.get('detail')}"
        case "published":
            return f"published {data.get('kind')} {data.get('id')} ({data.get('name')})"
        case "ready":
            return f"ready after {data.get('seconds', '?')} s: {data.get('url')}"
        case "error":
            return f"error: {data.get('title')}: {data.get('detail')}"
    return None


_ROWS = ("accepted", "rejected", "not_needed")


def _counts(progress: dict[str, Any]) -> str:
    if progress.get("done") is None:
        return ""
    total = f"/{progress['total']:,}" if progress.get("total") else ""
    return f"{progress['done']:,}{total} {progress.get('unit', '')}".rstrip()


def _stage(data: dict[str, Any]) -> str:
    report = data.get("report") or {}
    verdict = "passed" if report.get("passed") else "stopped by its gate"
    why = f": {'; '.join(report['failures'])}" if report.get("failures") else ""
    return f"stage {data.get('index')} {data.get('kind')} {verdict}{why}"


def skills(measured: dict[str, Any]) -> str:
    """Accuracies per skill in words."""
    return ", ".join(
        f"{skill} {100 * found['correct'] / found['n']:.0f}% of {found['n']}"
        for skill, found in measured.items()
        if found.get("n")
    )
