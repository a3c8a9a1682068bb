"""What the processes of a job wrote: its trainer, its vLLM, those of its parts. They lie in the
data directory of the host that ran them, until retention takes them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prompts.record import Frozen
from service import jobs, logs
from service.site import Site

MOST_BYTES = 8 << 20
"""Of one log: the most that is shown of its end."""


class JobLog(Frozen):
    """The end of what one process wrote."""

    job_id: str
    name: str
    """Such as `train.log`."""
    bytes: int
    """All that it wrote."""
    text: str
    """Whole lines of the end, what looks like a secret blotted out."""


def read(site: Site, job_id: str, tail_bytes: int) -> tuple[JobLog, ...]:
    """The ends of a job's logs and of its parts', oldest first. Empty where no process of its own
    works on it (a build, say), or where another host's data directory holds them. Raises a 404
    problem."""
    with site.sessions.reading() as session:
        jobs.get(session, job_id)
        family = [job_id, *(child.id for child in jobs.children(session, job_id))]
    return tuple(log for one in family for log in _logs(site, one, tail_bytes))


def as_text(found: tuple[JobLog, ...]) -> str:
    """One text, each log under its name."""
    return "\n".join(f"==> {log.job_id} {log.name} <==\n{log.text}" for log in found)


def _logs(site: Site, job_id: str, tail_bytes: int) -> Iterator[JobLog]:
    folder = site.settings.data_dir / "work" / job_id
    # Retention may delete the folder meanwhile: then there is nothing to show.
    with suppress(FileNotFoundError):
        for path in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime):
            yield _end(job_id, path, tail_bytes)


def _end(job_id: str, path: Path, tail_bytes: int) -> JobLog:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - tail_bytes)
        file.seek(start)
        block = file.read(tail_bytes)
    if start:
        # A cut line may hold the half of a secret that no longer looks like one.
        block = block.partition(b"\n")[2]
    return JobLog(job_id=job_id, name=path.name, bytes=size, text=_shown(block))


def _shown(block: bytes) -> str:
    """Lines as a terminal would leave them: of a bar that was redrawn, its last state."""
    text = block.decode("utf-8", "replace").replace("\r\n", "\n")
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return logs.redact("\n".join(lines))
