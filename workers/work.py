"""What a worker needs to know of a build before it can drain it, read once."""

import json
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from prompts.intake import read_pool
from prompts.plan import Plan, TeacherFacts, make_plan
from prompts.record import Seed
from prompts.spec import BuildSpec, IclBuild
from service.jobs import spec_of
from service.settings import secret
from service.site import Site
from service.spec import BuildJob
from service.tables import Artifact, Job, Teacher
from workers.durable import Write, write_durably
from workers.teacher import Endpoint, TeacherError
from workers.tokens import Counter, token_counter


@dataclass(frozen=True)
class Work:
    """A build job, ready to be drained."""

    job_id: str
    root: Path
    """The artifact root, where ledger and chunks lie too."""
    spec: BuildSpec
    plan: Plan
    endpoint: Endpoint
    seeds: Path
    """The normalised seeds file, one JSON object a line."""
    write: Write = write_durably


def build_folder(root: Path, job_id: str) -> Path:
    """Where a build keeps what it needs until its dataset is published."""
    return root / "build" / job_id


def seeds_path(root: Path, job_id: str) -> Path:
    """Where a build's normalised seeds lie."""
    return build_folder(root, job_id) / "seeds.jsonl"


def build_spec(job: Job) -> BuildSpec:
    """What a build job asks for."""
    spec = spec_of(job)
    assert isinstance(spec, BuildJob)
    return spec.build


def load_work(site: Site, job: Job, write: Write = write_durably) -> Work:
    """Read what draining needs. Raises `TeacherError` if the teacher can't be asked at all."""
    spec, root = build_spec(job), site.store.root
    with site.sessions.reading() as session:
        teacher = session.get(Teacher, spec.teacher)
        if teacher is None:
            raise TeacherError("teacher_unknown", f"no teacher {spec.teacher!r}: register it")
        pool = _pool(site, session, spec)
        facts = _facts(teacher, token_counter(site.store, session, teacher.model))
    plan = make_plan(spec, pool, facts)
    endpoint = find_endpoint(teacher, site.settings.request_timeout_s)
    return Work(job.id, root, spec, plan, endpoint, seeds_path(root, job.id), write)


def find_endpoint(teacher: Teacher, timeout_s: float) -> Endpoint:
    """Where a registered teacher is asked, its key fetched. Raises `TeacherError`."""
    name = teacher.name
    key = secret(teacher.api_key_env) if teacher.api_key_env else None
    if teacher.api_key_env and key is None:
        raise TeacherError(
            "teacher_refused_key",
            f"the key of teacher {name} is expected in the environment variable "
            f"{teacher.api_key_env}, which the workers don't have: set it and start them again",
        )
    return Endpoint(name, teacher.base_url.rstrip("/"), teacher.served_model, key, timeout_s)


def read_seeds(path: Path, offset: int, rows: int) -> list[Seed]:
    """`rows` seeds from byte `offset` on."""
    with open(path, "rb") as lines:
        lines.seek(offset)
        return [json.loads(lines.readline()) for _ in range(rows)]


def _facts(teacher: Teacher, count_tokens: Counter | None) -> TeacherFacts:
    probe = teacher.probe
    return TeacherFacts(
        name=teacher.name,
        revision=probe.get("revision"),
        context_tokens=probe.get("context_tokens"),
        count_tokens=count_tokens,
    )


def _pool(site: Site, session: Session, spec: BuildSpec) -> tuple[Seed, ...] | None:
    if not isinstance(spec, IclBuild):
        return None
    with open(site.store.path(session.get_one(Artifact, spec.pool or spec.seeds)), "rb") as lines:
        return read_pool(spec, lines) if spec.demonstrations else ()
