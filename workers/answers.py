"""What a batch was answered, kept before anything else happens with it.

Segments lie under `ledger/<job>/batch/<epoch>/<seq>`: JSON lines in the form of the output file,
one writer per epoch. A successor reads all of them before it asks anything.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from service.durable import Write, make_directory, write_durably
from service.site import Site
from service.tables import Job
from workers.lease import Lease
from workers.ledger import LeaseLostError, until_written

GROUP_S = 0.05
"""How long an answer waits for others to share its fsync."""
Line = dict[str, Any]
"""id, custom_id, response, error: a line of the output file."""


def answers_folder(root: Path, job_id: str) -> Path:
    """Where a batch's segments lie."""
    return root / "ledger" / job_id / "batch"


def read_answers(folder: Path) -> dict[str, Line]:
    """All answers of a batch by custom_id; the first to a request stands."""
    found: dict[str, Line] = {}
    for segment in sorted(folder.glob("[0-9]*/[0-9]*")):
        for text in segment.read_bytes().splitlines():
            line = json.loads(text)
            found.setdefault(line["custom_id"], line)
    return found


def is_error(line: Line) -> bool:
    """Whether a line belongs into the error file."""
    return line["error"] is not None or line["response"]["status_code"] != 200


def write_lines(path: Path, lines: list[Line], write: Write = write_durably) -> None:
    """Write a file of lines, whole or not at all."""
    if not path.parent.exists():
        make_directory(path.parent)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write(path, text.encode())


def publish_answers(site: Site, job: Job, lines: list[Line], total: int) -> dict[str, Any]:
    """Publish the output and the error file, if they have lines. The job's result."""
    sorted_lines: dict[str, list[Line]] = {"output": [], "error": []}
    for line in lines:
        sorted_lines["error" if is_error(line) else "output"].append(line)
    result: dict[str, Any] = {
        "total": total,
        "completed": len(sorted_lines["output"]),
        "failed": len(sorted_lines["error"]),
    }
    for kind, rows in sorted_lines.items():
        if rows:
            result[f"{kind}_file"] = _publish_file(site, job, kind, rows)
    return result


def _publish_file(site: Site, job: Job, kind: str, rows: list[Line]) -> str:
    place = site.settings.data_dir / "work" / job.id / f"{job.id}_{kind}.jsonl"
    write_lines(place, rows)
    summary, inputs = {"purpose": "batch_output", "rows": len(rows)}, [job.spec["input"]]
    with site.sessions.writing.begin() as session:
        return site.store.publish(
            session, "file", place.name, place, summary=summary, inputs=inputs, job_id=job.id
        ).id


class AnswerLog:
    """Appends to a batch's answers under one lease; those that come together share an fsync."""

    def __init__(self, folder: Path, lease: Lease, write: Write = write_durably) -> None:
        self._folder = folder / f"{lease.epoch:06d}"
        self._lease, self._write_file = lease, write
        self._sequence = 0
        self._waiting: list[tuple[Line, asyncio.Future[None]]] = []

    async def append(self, line: Line) -> None:
        """Returns once the line is durable; raises `LeaseLostError` or OSError if it is not."""
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((line, durable))
        await durable

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await asyncio.sleep(GROUP_S)
            group, self._waiting = self._waiting, []
            if group:
                await self._write(group)

    async def _write(self, group: list[tuple[Line, "asyncio.Future[None]"]]) -> None:
        self._sequence += 1
        place, lines = self._folder / f"{self._sequence:06d}", [line for line, _ in group]
        error: Exception | None = None
        try:
            await until_written(
                self._lease, lambda _: None, lambda: write_lines(place, lines, self._write_file)
            )
        except (OSError, LeaseLostError) as failure:
            error = failure
        for _, durable in group:
            if durable.done():
                continue
            if error is None:
                durable.set_result(None)
            else:
                durable.set_exception(error)
