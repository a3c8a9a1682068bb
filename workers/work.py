"""What a worker needs to know of a build before it can drain it, read once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy.orm import Session

from prompts.instructions import BuildPlan, with_method
from prompts.intake import read_pool
from prompts.overlap import EvaluationSet
from prompts.plan import RescorePlan, TeacherFacts, make_plan
from prompts.record import Call, Record, Rejected, Seed
from prompts.signal import SignalHeader, context_tokens
from prompts.spec import BuildSpec, RescoreBuild, Shots
from prompts.spec.asked import asked_teachers, asks_nobody, embedder_of
from service.asking import Endpoint, TeacherError, find_endpoint
from service.durable import Write, write_durably
from service.evaluation import evaluation_set
from service.jobs import spec_of
from service.problems import Problem
from service.shared import Directory, Shared, Wanted
from service.site import Site
from service.sources import source_lines
from service.spec import BuildJob
from service.store import Store, everything, light
from service.tables import Artifact, Job, Teacher
from workers.embeddings import Embeddings
from workers.rounds import Rounds, method_in_rounds
from workers.signals import signal_header
from workers.tokens import Counter, row_encoder, token_counter, user_opening


@dataclass(frozen=True)
class Work:
    """A build job, ready to be drained."""

    job_id: str
    root: Path
    """The artifact root, where ledger and chunks lie too."""
    spec: BuildSpec
    plan: BuildPlan
    endpoints: Mapping[str, Endpoint]
    """Of all teachers that the build may ask, in the spec's order."""
    seeds: Path
    """The normalised seeds file, one JSON object a line."""
    directories: Mapping[str, Path | None] = field(default_factory=dict)
    """Where each teacher's weights and tokenizer lie, if they are at hand."""
    revisions: Mapping[str, str | None] = field(default_factory=dict)
    prices: Mapping[str, "Prices"] = field(default_factory=dict)
    goal: int | None = None
    """How many rows to accept, as the job stood when it was read."""
    cancelled: bool = False
    signal: SignalHeader | None = None
    """What is kept of the teacher's distribution; None: nothing."""
    in_process: bool = False
    """The teacher's weights are loaded here, and no server is asked."""
    gpus: int | None = None
    """Of all its teachers' servers together."""
    shared: Shared = field(default_factory=Directory)
    write: Write = write_durably

    def price(self, call: Call) -> float:
        """What an answer cost, by its teacher's registration."""
        prices = self.prices.get(call.teacher or self.spec.teacher, Prices())
        return (
            call.prompt_tokens * prices.prompt + call.completion_tokens * prices.completion
        ) / 1e6

    def attributed(self, outcome: Record | Rejected, calls: list[Call]) -> Record | Rejected:
        """The row with the teacher that wrote its answer; the plan knows only the spec's first."""
        name = next((call.teacher for call in calls if call.step == 0 and call.teacher), None)
        if name is None or name == outcome.teacher:
            return outcome
        changes: dict[str, str | None] = {"teacher": name}
        if isinstance(outcome, Record):
            changes["teacher_revision"] = self.revisions.get(name)
        return outcome.model_copy(update=changes)


@dataclass(frozen=True)
class Prices:
    """Of a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0


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


def load_work(site: Site, job: Job, write: Write | None = None) -> Work:
    """Read what draining needs. Raises `TeacherError` if the teacher can't be asked at all."""
    spec, root, shared = build_spec(job), site.store.root, site.store.shared
    shared.pull(seeds_path(root, job.id))
    with site.sessions.reading() as session:
        teachers = [_teacher(session, name) for name in asked_teachers(spec)]
        first = next(teacher for teacher in teachers if teacher.name == spec.teacher)
        evaluation = _evaluation(site.store, session, spec)
        facts = _facts(first, token_counter(site.store, session, first.model))
        wanted = everything if asks_nobody(spec) else light
        directories = {
            each.name: model_directory(site.store, session, each, wanted) for each in teachers
        }
        if asks_nobody(spec):
            facts = replace(facts, context_tokens=context_tokens(directories[first.name]))
    return Work(
        job_id=job.id,
        root=root,
        shared=shared,
        spec=spec,
        plan=_plan(site, job.id, spec, facts, directories[first.name], evaluation),
        endpoints=_unasked(first) if asks_nobody(spec) else find_endpoints(site, teachers),
        in_process=asks_nobody(spec),
        seeds=seeds_path(root, job.id),
        directories=directories,
        revisions={each.name: each.probe.get("revision") for each in teachers},
        prices={
            each.name: Prices(each.price_prompt or 0.0, each.price_completion or 0.0)
            for each in teachers
        },
        gpus=sum(each.gpus or 0 for each in teachers) or None,
        goal=job.goal,
        cancelled=job.cancel_requested,
        signal=signal_header(spec, first, directories[first.name]),
        write=write or shared.write,
    )


def _plan(
    site: Site,
    job_id: str,
    spec: BuildSpec,
    facts: TeacherFacts,
    directory: Path | None,
    evaluation: tuple[EvaluationSet, ...],
) -> BuildPlan:
    if isinstance(spec, RescoreBuild):
        return RescorePlan(spec, replace(facts, encode=row_encoder(spec.teacher, directory)))
    with site.sessions.reading() as session:
        embed = _embed(site, session, spec)
    if not spec.takes_seeds:
        facts = replace(facts, opening=user_opening(spec.teacher, directory, spec.system))
    method, allowed = method_in_rounds(spec), site.settings.allow_python_verifiers
    plan = make_plan(spec, _pool(site, spec), facts, evaluation, embed, allowed)
    return with_method(plan, Rounds(site, job_id, spec, method) if method else None)


def find_endpoints(site: Site, teachers: list[Teacher]) -> dict[str, Endpoint]:
    """Where each is asked. Raises `TeacherError`."""
    return {teacher.name: find_endpoint(teacher, site.settings) for teacher in teachers}


def _unasked(teacher: Teacher) -> dict[str, Endpoint]:
    """A teacher in process: its key is not looked for, its address not used."""
    return {teacher.name: Endpoint(teacher.name, teacher.base_url, teacher.served_model)}


def model_directory(
    store: Store, session: Session, teacher: Teacher, wanted: Wanted
) -> Path | None:
    """Where a teacher's tokenizer, and what else is `wanted`, lies, if it is at hand."""
    if teacher.model is None:
        return None
    try:
        return Path(store.locate_model(session, teacher.model, wanted))
    except Problem:
        return None


def _teacher(session: Session, name: str) -> Teacher:
    teacher = session.get(Teacher, name)
    if teacher is None:
        raise TeacherError("teacher_unknown", f"no teacher {name!r}: register it")
    return teacher


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


def _pool(site: Site, spec: BuildSpec) -> tuple[Seed, ...] | None:
    if not isinstance(spec, Shots) or not spec.demonstrations:
        return None
    return read_pool(spec, source_lines(site, spec, spec.pool))


def _evaluation(store: Store, session: Session, spec: BuildSpec) -> tuple[EvaluationSet, ...]:
    if spec.decontaminate is None:
        return ()
    return (evaluation_set(store, session, session.get_one(Artifact, spec.decontaminate)),)


def _embed(site: Site, session: Session, spec: BuildSpec) -> Embeddings | None:
    embedder = embedder_of(spec)
    if embedder is None:
        return None
    endpoint = find_endpoint(_teacher(session, embedder), site.settings)
    folder, patience_s = site.store.root / "embeddings", site.settings.teacher_patience_s
    return Embeddings(endpoint, folder, shared=site.store.shared, patience_s=patience_s)
