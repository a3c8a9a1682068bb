"""What tests start from."""

import json
from pathlib import Path
from typing import Any

from service import teachers
from service.disk import Written
from service.ids import make_id
from service.probe import Probe
from service.site import Site
from service.spec import JobSpec, job_spec
from service.store import Upload
from service.tables import Job, State
from service.teachers import Registration


def add_file(site: Site, text: str, name: str = "seeds.jsonl") -> str:
    """Put a file into the store, unchecked."""
    path = site.store.root / "incoming" / make_id("file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with site.sessions.writing.begin() as session:
        upload = Upload(path, name, Written(len(text), "0" * 64))
        return site.store.keep(session, upload, {}).id


def add_model(folder: Path, vocabulary: dict[str, int] | None = None) -> Path:
    """A directory that looks like a model's to whoever doesn't load it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if vocabulary is not None:
        content = {"model": {"vocab": vocabulary}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def add_teacher(site: Site, name: str = "t", probe: Probe | None = None, url: str = "") -> None:
    """Register a teacher without asking its server."""
    registration = Registration(name=name, base_url=url or "http://127.0.0.1:9", served_model="m")
    found = probe or Probe(ok=True, context_tokens=512, max_logprobs=20)
    with site.sessions.writing.begin() as session:
        teachers.register(session, registration, found)


def spec(**fields: Any) -> JobSpec:
    """A job spec from its fields."""
    return job_spec.validate_python(fields)


def build(seeds: str, **fields: Any) -> dict[str, Any]:
    """A CoT build's fields."""
    return {"kind": "cot", "teacher": "t", "seeds": seeds, **fields}


def state_of(site: Site, job_id: str) -> tuple[State, str | None]:
    """State and reason of a job, as they stand."""
    with site.sessions.reading() as session:
        job = session.get_one(Job, job_id)
        return State(job.state), job.reason
