"""Files that users upload: seeds, pools, evaluation sets, datasets to import."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread

from prompts.seeds import SeedError, scan_seeds
from prompts.tables import file_lines
from service.multipart import Form
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.store import Upload, file_name
from service.tables import Artifact

Purpose = Literal["seeds", "pool", "evaluation", "dataset", "batch", "fine-tune"]

REQUIRED: dict[Purpose, frozenset[str] | None] = {
    "seeds": frozenset(),
    "pool": frozenset(),
    "evaluation": frozenset({"skill", "prompt"}),
    "dataset": None,
    "batch": None,
    "fine-tune": None,
}
"""Fields that each line must have; None: not JSON Lines of ours: whoever reads it checks it."""

LONGEST_LINE_BYTES = 64 * 2**20


async def receive_form(site: Site, form: Form, purpose: Callable[[], Purpose]) -> Artifact:
    """Store a form's file; `purpose` is asked once its fields are complete, and may raise. Then,
    and if the file is unusable, nothing is left behind."""
    upload = await site.store.receive(form.file, "upload")
    upload = replace(upload, name=file_name(form.file_name))
    try:
        wanted = purpose()
    except BaseException:
        site.store.discard(upload)
        raise
    return await anyio.to_thread.run_sync(_keep, site, upload, wanted)


async def receive(
    site: Site, stream: AsyncIterator[bytes], name: str, purpose: Purpose
) -> Artifact:
    """Store an upload, unless it is unusable: then a 422 problem names the line, and nothing is
    left behind."""
    upload = await site.store.receive(stream, name)
    return await anyio.to_thread.run_sync(_keep, site, upload, purpose)


def _keep(site: Site, upload: Upload, purpose: Purpose) -> Artifact:
    try:
        summary = {"purpose": purpose, **_scan(upload.path, upload.name, purpose)}
        with site.sessions.writing.begin() as session:
            return site.store.keep(session, upload, summary)
    except BaseException:
        site.store.discard(upload)
        raise


def _scan(path: Path, name: str, purpose: Purpose) -> dict[str, Any]:
    required = REQUIRED[purpose]
    if required is None:
        return {}
    rows = 0
    fields: list[str] = []
    try:
        tabular = Path(name).suffix.lower() in (".csv", ".parquet") and purpose in ("seeds", "pool")
        lines = file_lines(path, name) if tabular else _lines(path)
        for _, seed in scan_seeds(lines, required):
            rows += 1
            fields = fields or list(seed)
    except SeedError as error:
        raise _unusable(error, purpose) from error
    return {"rows": rows, "fields": fields}


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        number = 1
        while line := file.readline(LONGEST_LINE_BYTES + 1):
            if len(line) > LONGEST_LINE_BYTES:
                raise SeedError(number, f"longer than {LONGEST_LINE_BYTES:,} bytes")
            yield line
            number += 1


def _unusable(error: SeedError, purpose: Purpose) -> Problem:
    location = "file" if error.line is None else f"line {error.line}"
    return bad_input([Fault(location, error.problem)], f"The {purpose} file can't be used")
