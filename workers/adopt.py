"""A build that failed or was cancelled, submitted again, takes over what was paid for.

What it may take is decided by equality: the same spec, the same bytes of seeds, the same teacher.
Then chunks and rows are numbered alike, and the old ledger's entries become epoch 0 of the new one:
no worker claims that epoch, so it has this one writer.
"""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.durable import make_directory
from service.store import Store
from service.tables import Artifact, Job, State, Teacher
from workers.ledger import encode_segment, read_entries

TEACHER_FILE = "teacher.json"


def ledger_folder(root: Path, job_id: str) -> Path:
    """Where a job's ledger lies, one folder per chunk."""
    return root / "ledger" / job_id


def start_ledger(store: Store, job_id: str, teacher: Teacher) -> None:
    """Note whose answers a job's ledger holds."""
    folder = ledger_folder(store.root, job_id)
    make_directory(folder)
    store.shared.write(folder / TEACHER_FILE, _identity(teacher))


def adopt(session: Session, store: Store, job: Job, teacher: Teacher) -> int:
    """Copy the ledger of the newest equal job that ended early; how many entries there were."""
    ended = Job.state.in_([State.FAILED, State.CANCELLED])
    earlier = select(Job).where(Job.kind == "build", ended, Job.id != job.id)
    wanted = _content(session, job)
    for other in session.scalars(earlier.order_by(Job.created_at.desc()).limit(1000)).all():
        if _content(session, other) != wanted:
            continue
        store.let_go(session)
        if _same_teacher(store, other.id, teacher):
            return _copy(store, other.id, job.id)
    return 0


def _copy(store: Store, old: str, new: str) -> int:
    source, target = ledger_folder(store.root, old), ledger_folder(store.root, new)
    store.shared.pull(source)
    copied = 0
    for chunk in sorted(folder for folder in source.iterdir() if folder.is_dir()):
        entries = [entry for row in read_entries(chunk).values() for entry in row]
        if entries:
            make_directory(target / chunk.name / "000000")
            segment = target / chunk.name / "000000" / "000001"
            store.shared.write(segment, encode_segment(entries))
        copied += len(entries)
    return copied


def _content(session: Session, job: Job) -> dict[str, Any]:
    """A build's spec with what its files hold in place of their ids: each upload gets a new one."""
    build = dict(job.spec["build"])
    for field in ("seeds", "pool"):
        artifact = session.get(Artifact, build.get(field) or "")
        build[field] = artifact.sha256 if artifact is not None else build.get(field)
    return build


def _same_teacher(store: Store, job_id: str, teacher: Teacher) -> bool:
    path = ledger_folder(store.root, job_id) / TEACHER_FILE
    store.shared.pull(path)
    return path.is_file() and path.read_bytes() == _identity(teacher)


def _identity(teacher: Teacher) -> bytes:
    facts = {"name": teacher.name, "served_model": teacher.served_model}
    return json.dumps(facts | {"revision": teacher.probe.get("revision")}).encode()
