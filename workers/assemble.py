"""The end of a build: chunks merged in input order, the dataset published, the job over."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from prompts.dataset import ChunkFile, Diff, Manifest, ShortError
from prompts.dataset import assemble as merge
from prompts.dataset.likeness import Judge
from prompts.earlier import earlier_chunk
from prompts.signal import SUFFIX
from prompts.spec import BuildSpec, Shots
from service import events, jobs
from service.site import Site
from service.store import Store
from service.tables import Artifact, Chunk, ChunkState, Job, State
from workers.adopt import ledger_folder
from workers.judges import judges_of
from workers.lease import Lease, write_job
from workers.ledger import LeaseLostError
from workers.pulse import tell_progress
from workers.rounds import Rounds, method_in_rounds
from workers.work import build_folder, build_spec


def assemble(site: Site, lease: Lease) -> None:
    """Publish the dataset of a job whose chunks are all done, and end the job; in one commit.

    Raises `LeaseLostError`, and `Problem` if the disk is full; then it can be done again.
    """
    with site.sessions.reading() as session:
        job = jobs.get(session, lease.job_id)
        ordered = select(Chunk).where(Chunk.job_id == lease.job_id).order_by(Chunk.number)
        chunks = list(session.scalars(ordered))
        spec = build_spec(job)
    method = method_in_rounds(spec)
    pool = Rounds(site, job.id, spec, method)(0) if method is not None else None
    with site.sessions.reading() as session:
        judges = judges_of(site.store, session, spec, pool)
    base = _base(site, spec)
    staged = build_folder(site.store.root, lease.job_id) / f"dataset-{lease.epoch}"
    spent = _spent(chunks)
    try:
        before = _taken_over(staged, base)
        manifest = _merge(site.store, job, chunks, staged, spent, judges, before)
    except ShortError as short:
        _ask_on(site, lease, job, short.accepted)
        return
    _publish(site, lease, job, staged, manifest, spent)
    _tidy(site.store, job)


def _merge(
    store: Store,
    job: Job,
    chunks: list[Chunk],
    staged: Path,
    spent: dict[str, float],
    judges: tuple[Judge, ...],
    before: ChunkFile | None,
) -> Manifest:
    spec = build_spec(job)
    first = [before.path] if before is not None else []
    made = [store.root / (chunk.path or "") for chunk in chunks]
    for path in made:
        store.shared.pull(path)
        if spec.signal is not None:
            store.shared.pull(path.with_suffix(SUFFIX))
    return merge(
        staged,
        [*first, *made],
        recipe=job.spec,
        seeds=sum(chunk.rows for chunk in chunks) + (before.rows if before is not None else 0),
        diff=Diff(base=str(spec.incremental), kept=before.accepted, added=0) if before else None,
        name=spec.name,
        deduplicate=spec.deduplicate,
        signal=spec.signal is not None,
        judges=judges,
        target_rows=spec.target_rows,
        totals={name: spent[name] for name in ("requests", "teacher_seconds")},
    )


def _base(site: Site, spec: BuildSpec) -> Path | None:
    """Where the version lies that an incremental build begins from."""
    if not isinstance(spec.incremental, str):
        return None
    with site.sessions.reading() as session:
        before = session.get_one(Artifact, spec.incremental)
    return site.store.path(before)


def _taken_over(staged: Path, base: Path | None) -> ChunkFile | None:
    """The earlier version's rows as a chunk before all others."""
    if base is None:
        return None
    return earlier_chunk(base, staged.with_name(f"{staged.name}-earlier.parquet"))


def _ask_on(site: Site, lease: Lease, job: Job, accepted: int) -> None:
    """Duplicates left too few rows: raise the goal and open the chunks with unasked rows again.
    Their ledgers stay, so nothing is asked twice."""
    target, goal = build_spec(job).target_rows or 0, job.goal or 0
    missing = target - accepted
    more = max(missing, math.ceil(missing * goal / max(1, accepted)))
    with site.sessions.writing.begin() as session:
        if not write_job(session, lease, {"goal": goal + more, "owner": None}):
            raise LeaseLostError(job.id)
        unasked = Chunk.job_id == job.id, Chunk.state == ChunkState.DONE, Chunk.not_needed > 0
        again = {"state": ChunkState.PENDING, "not_needed": 0, "epoch": Chunk.epoch + 1}
        session.execute(
            update(Chunk)
            .where(*unasked)
            .values(**again)
            .execution_options(synchronize_session=False)
        )
        events.emit(session, job.id, "goal", {"accepted": accepted, "goal": goal + more})
    site.broker.ring("build", job.id)


def _publish(
    site: Site, lease: Lease, job: Job, staged: Path, manifest: Manifest, spent: dict[str, float]
) -> None:
    spec, counts = build_spec(job), manifest.counts
    summary = counts.model_dump() | {"splits": manifest.splits, "reasons": manifest.reasons}
    inputs = _inputs(spec)
    with site.sessions.writing.begin() as session:
        dataset = site.store.publish(
            session, "dataset", spec.name, staged, summary=summary, inputs=inputs, job_id=job.id
        )
        tell_progress(session, job.id, counts.model_dump(exclude={"seeds"}))
        now = jobs.get(session, job.id)
        cancelled = "cancelled" in manifest.reasons
        empty = "empty" if manifest.empty else None
        result: dict[str, Any] = {"dataset": dataset.id, "reasons": manifest.reasons, **spent}
        ended = jobs.finish(
            session,
            now.id,
            lease.epoch,
            State.CANCELLED if cancelled else State.SUCCEEDED,
            reason="cancelled" if cancelled else empty,
            detail=_detail(manifest),
            result=result | counts.model_dump(exclude={"seeds"}),
        )
        if not ended:
            raise LeaseLostError(job.id)  # Rolls the publication back, too.


def _inputs(spec: BuildSpec) -> list[str]:
    """Ids of what the dataset was made from; directories and names elsewhere are in its recipe."""
    pool = spec.pool if isinstance(spec, Shots) else None
    given = [spec.seeds, pool, spec.incremental]
    return [name for name in given if isinstance(name, str) and name.startswith(("file-", "ds-"))]


def _detail(manifest: Manifest) -> str | None:
    if not manifest.empty:
        return None
    return "no row was accepted: see the dataset's rejected rows, each with its reason and raw text"


def _spent(chunks: list[Chunk]) -> dict[str, float]:
    seconds = sum(chunk.teacher_seconds for chunk in chunks)
    price = sum(chunk.price for chunk in chunks)
    return {
        "requests": sum(chunk.requests for chunk in chunks),
        "prompt_tokens": sum(chunk.prompt_tokens for chunk in chunks),
        "completion_tokens": sum(chunk.completion_tokens for chunk in chunks),
        "teacher_seconds": round(seconds, 3),
    } | ({"price": round(price, 6)} if price else {})


def _tidy(store: Store, job: Job) -> None:
    """Remove what the dataset holds now. A cancelled job's ledger stays, to be adopted."""
    # The job is over: what can't be removed now is swept by age.
    folders = [build_folder(store.root, job.id)]
    if not job.cancel_requested:
        folders.append(ledger_folder(store.root, job.id))
    for folder in folders:
        with suppress(OSError):
            store.shared.remove(folder)
