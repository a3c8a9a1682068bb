"""The smoke gate: a build's first rows are asked alone, and decide whether the rest is."""

from typing import Any, Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from prompts.dataset.chunk import read_batches
from prompts.limits import Smoke
from service import events, pausing
from service.site import Site
from service.tables import Chunk, ChunkState, Job, State
from workers.sql import in_session
from workers.work import Work

GATE_CHUNK = 0
"""The first rows are a chunk of their own."""
SHOWN_CHARACTERS = 400

Verdict = Literal["open", "waits", "shut"]


def verdict(site: Site, work: Work) -> Verdict:
    """Whether the rows behind the gate may be asked; decides it once its rows have ended."""
    smoke = work.spec.smoke
    if smoke is None:
        return "open"
    with site.sessions.reading() as session:
        job = session.get_one(Job, work.job_id)
        chunk = session.get_one(Chunk, (work.job_id, GATE_CHUNK))
    if job.smoke is not None or job.cancel_requested:
        return "open"
    if chunk.state != ChunkState.DONE:
        return "waits"
    asked = chunk.accepted + chunk.rejected  # The others' target or budget was met before.
    if chunk.accepted >= smoke.min_accepted * asked:
        return _pass(site, work)
    in_session(site.sessions.writing, _shut, work, smoke, chunk)
    return "shut"


def _pass(site: Site, work: Work) -> Verdict:
    with site.sessions.writing.begin() as session:
        passed = session.execute(
            update(Job)
            .where(Job.id == work.job_id, Job.smoke.is_(None), Job.state == State.RUNNING)
            .values(smoke="passed")
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).first()
        if passed is not None:
            events.emit(session, work.job_id, "smoke", {"passed": True})
    return "open"


def _shut(session: Session, work: Work, smoke: Smoke, chunk: Chunk) -> None:
    detail = (
        f"{chunk.accepted} of the first {chunk.rows} rows were accepted, smoke.min_accepted asks"
        f" for {smoke.min_accepted:.0%}. Look at them (retort jobs show {work.job_id}); go on all"
        f" the same with `retort resume {work.job_id}`, or cancel it and mend the recipe."
    )
    rows = _shown(work, chunk)
    pausing.hold(session, work.job_id, pausing.SMOKE, detail, rows=rows)
    session.commit()


def _shown(work: Work, chunk: Chunk) -> list[dict[str, Any]]:
    shown = []
    path = work.root / (chunk.path or "")
    work.shared.pull(path)
    for table in read_batches(path):
        for row in table.to_pylist():
            said = [turn["content"] for turn in row["completion"] or ()] or row["raw"] or []
            shown.append(
                {name: row[name] for name in ("id", "end", "reason", "detail", "answer", "gold")}
                | {
                    "prompt": _short("\n".join(turn["content"] for turn in row["prompt"])),
                    "said": _short("\n".join(said)),
                }
            )
    return shown


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
